"""Queries, searches, accounts, knowledge and reports: all that only reads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import AccountNotLinked, Refused
from pilothouse_dataplane.connectors.salesforce import soql
from pilothouse_dataplane.connectors.salesforce.call import (
    Call,
    Handler,
    clean,
    done,
    id_of,
    names_of,
    type_of,
)
from pilothouse_dataplane.connectors.shape import mapping, mappings, text, unreadable, whole
from pilothouse_dataplane.core.messages import Citation, ToolResult

_ACCOUNT = "SELECT Id, Name, Phone, Website, Industry, BillingCity, Owner.Name, Owner.Email FROM Account"
_ACCOUNT_ID = re.compile(r"001[A-Za-z0-9]{12}(?:[A-Za-z0-9]{3})?")
_LANGUAGE = re.compile(r"[a-z]{2}(?:_[A-Z]{2})?")
_TITLES = {
    "Case": ("CaseNumber", "Subject", "Status"),
    "Task": ("Subject", "Status"),
    "Event": ("Subject",),
    "Contract": ("ContractNumber", "Status"),
    "Order": ("OrderNumber", "Status"),
    "Contact": ("Name", "Email", "Phone"),
    "Lead": ("Name", "Email", "Company"),
    "User": ("Name", "Email"),
}
"""What a found record is told by, where it is not its Name alone."""
_MAX_ROWS = 200


def _count(number: int, more: bool, noun: str) -> str:
    return f"{'at least ' if more else ''}{number} {noun}{'' if number == 1 else 's'}"


async def query_run(call: Call) -> ToolResult:
    wanted = whole(call.arguments, "max_results", 50, _MAX_ROWS)
    # one more than is told shows whether there are more
    query = soql.limited(call.word("query"), wanted + 1)
    found, total, more = await call.client.query(
        query, call.context, needs="Read on the objects and fields of the query", wanted=wanted
    )
    rows = [clean(record) for record in found]
    if not rows and total:  # COUNT() answers with the number alone
        return done(f"Salesforce counts {total}.", {"records": [], "total": total, "more": False})
    summary = f"Found {_count(len(rows), more, 'record')} in Salesforce."
    return done(summary, {"records": rows, "total": total, "more": more})


async def search_run(call: Call) -> ToolResult:
    wanted = whole(call.arguments, "max_results", 20, 100)
    names = names_of(call.arguments.get("objects", ["Account", "Contact"]), "“objects”", 10)
    body = {
        "q": soql.words(call.word("text")),
        "in": "ALL",
        "overallLimit": wanted,
        "sobjects": [{"name": n, "fields": ["Id", *_TITLES.get(n, ("Name",))], "limit": wanted} for n in names],
    }
    found = await call.client.search(body, call.context, needs=f"Read on {', '.join(names)}")
    rows = [{"object": type_of(record), **clean(record)} for record in found[:wanted]]
    more = len(found) >= wanted
    return done(f"Found {_count(len(rows), more, 'record')} in Salesforce.", {"records": rows, "more": more})


async def knowledge_search(call: Call) -> ToolResult:
    wanted, language = whole(call.arguments, "max_results", 5, 20), call.word("language", "en_US")
    if not _LANGUAGE.fullmatch(language):
        raise Refused(f"“{text(language, 20)}” is no language such as en_US; Salesforce was not asked.", asked=False)
    fields = ["Id", "Title", "Summary", "UrlName", "ArticleNumber", "LastPublishedDate"]
    where = f"PublishStatus = 'Online' AND Language = {soql.quote(language)}"
    body = {
        "q": soql.words(call.word("text")),
        "in": "ALL",
        "overallLimit": wanted,
        "sobjects": [{"name": "Knowledge__kav", "fields": fields, "where": where, "limit": wanted}],
    }
    found = await call.client.search(body, call.context, needs="Read on Knowledge (Allow View Knowledge)")
    rows = [
        {
            "id": text(article.get("Id")),
            "number": text(article.get("ArticleNumber")),
            "title": text(article.get("Title")),
            "summary": text(article.get("Summary"), 2000),
            "published": text(article.get("LastPublishedDate")),
            "url": call.url(text(article.get("Id"))),
        }
        for article in found[:wanted]
    ]
    citations = [Citation(row["title"], row["url"]) for row in rows if row["title"]]
    summary = f"Found {_count(len(rows), False, 'article')} in Salesforce Knowledge."
    return done(summary, {"articles": rows}, *citations)


# -- accounts ---------------------------------------------------------------------------------------------------------


def _account(call: Call, record: Mapping[str, Any]) -> dict[str, Any]:
    owner = mapping(record.get("Owner"))
    record_id = text(record.get("Id"))
    return {
        "id": record_id,
        "name": text(record.get("Name")),
        "owner": text(owner.get("Name")),
        "owner_email": text(owner.get("Email")),
        "phone": text(record.get("Phone")),
        "website": text(record.get("Website")),
        "industry": text(record.get("Industry")),
        "city": text(record.get("BillingCity")),
        "url": call.url(record_id),
    }


async def account_search(call: Call) -> ToolResult:
    wanted, name = whole(call.arguments, "max_results", 10, 50), call.word("name")
    where = f" WHERE Name LIKE {soql.contains(name)}" if name else ""
    query = f"{_ACCOUNT}{where} ORDER BY Name LIMIT {wanted + 1}"
    found, _, more = await call.client.query(query, call.context, needs="Read on Account", wanted=wanted)
    rows = [_account(call, record) for record in found]
    data: dict[str, Any] = {"accounts": rows, "more": more}
    summary = f"Found {_count(len(rows), more, 'account')} in Salesforce."
    if len(rows) == 1:  # so that a later step can refer to it without counting
        data |= rows[0]
        summary = f"{rows[0]['name']} is owned by {rows[0]['owner'] or 'somebody'} in Salesforce."
    return done(summary, data, *(Citation(row["name"], row["url"]) for row in rows[:5]))


async def account_get(call: Call) -> ToolResult:
    wanted = call.word("account")
    where = f"Id = {soql.quote(wanted)}" if _ACCOUNT_ID.fullmatch(wanted) else f"Name = {soql.quote(wanted)}"
    query = f"{_ACCOUNT} WHERE {where} LIMIT 2"
    found, _, _ = await call.client.query(query, call.context, needs="Read on Account", wanted=2)
    if len(found) != 1:
        many = "more than one account" if found else "no account that you may see"
        raise Refused(f"Salesforce has {many} named “{text(wanted, 100)}”. Search for it, and name its id.")
    account = _account(call, found[0])
    account_id = id_of(account["id"], "an account")
    opportunities, cases = await asyncio.gather(_open(call, "Opportunity", account_id), _open(call, "Case", account_id))
    data = account | {"open_opportunities": opportunities, "open_cases": cases}
    told = [
        f"{number} open {noun}{'' if number == 1 else 's'}"
        for number, noun in ((opportunities, "deal"), (cases, "case"))
        if number is not None
    ]
    has = f" and has {' and '.join(told)}" if told else ""
    summary = f"{account['name']} is owned by {account['owner'] or 'somebody'}{has}."
    return done(summary, data, Citation(account["name"], account["url"]))


async def _open(call: Call, name: str, account_id: str) -> int | None:
    """How many are open; None where the user may not see them."""
    # both names are ours, the id is checked and quoted
    query = f"SELECT COUNT() FROM {name} WHERE AccountId = {soql.quote(account_id)} AND IsClosed = FALSE"  # noqa: S608
    try:
        body = mapping(await call.ask("GET", "/query", needs=f"Read on {name}", query={"q": query}))
    except AccountNotLinked:
        raise
    except Refused:
        return None
    total = body.get("totalSize")
    return total if isinstance(total, int) and not isinstance(total, bool) else None


# -- reports ----------------------------------------------------------------------------------------------------------


async def report_list(call: Call) -> ToolResult:
    words = call.word("text").casefold()
    listed = await call.ask("GET", "/analytics/reports", needs="Run Reports")
    if not isinstance(listed, list):
        raise unreadable("Salesforce")
    rows = [
        {"id": text(report.get("id")), "name": text(report.get("name"))}
        for report in mappings(listed)
        if words in text(report.get("name")).casefold()
    ][:_MAX_ROWS]
    summary = f"Found {_count(len(rows), False, 'report')} among those that you have viewed last."
    return done(summary, {"reports": rows})


async def report_run(call: Call) -> ToolResult:
    report_id, wanted = (
        id_of(call.arguments.get("id"), "a report"),
        whole(call.arguments, "max_results", 100, _MAX_ROWS),
    )
    path, query = f"/analytics/reports/{report_id}", {"includeDetails": "true"}
    found = await call.ask("GET", path, needs="Run Reports", query=query, large=True)
    if not isinstance(found, dict):
        raise unreadable("Salesforce")
    metadata = mapping(found.get("reportMetadata"))
    extended = mapping(found.get("reportExtendedMetadata"))
    facts = mapping(found.get("factMap"))
    columns = _labels(metadata.get("detailColumns"), extended.get("detailColumnInfo"))
    sums = _labels(metadata.get("aggregates"), extended.get("aggregateColumnInfo"))
    groups = _groups(found.get("groupingsDown"))
    rows: list[dict[str, str]] = []
    for key, fact in facts.items():
        group = groups.get(str(key).partition("!")[0], "")
        for row in mappings(mapping(fact).get("rows")):
            cells = [text(cell.get("label"), 500) for cell in mappings(row.get("dataCells"))]
            rows.append(dict(zip(columns, cells, strict=False)) | ({"group": group} if group else {}))
    totals = [text(cell.get("label")) for cell in mappings(mapping(facts.get("T!T")).get("aggregates"))]
    more = len(rows) > wanted or found.get("allData") is False
    name = text(metadata.get("name")) or report_id
    data = {
        "id": report_id,
        "name": name,
        "columns": columns,
        "rows": rows[:wanted],
        "totals": dict(zip(sums, totals, strict=False)),
        "more": more,
    }
    url = call.url(report_id)
    summary = f"The report {name} has {_count(len(rows[:wanted]), more, 'row')}."
    return done(summary, data, Citation(name, url))


def _labels(names: object, infos: object) -> list[str]:
    known = mapping(infos)
    listed = names[:100] if isinstance(names, list) else []
    return [text(mapping(known.get(str(name))).get("label")) or text(name) for name in listed]


def _groups(down: object) -> dict[str, str]:
    """The name of each group of rows by its key in the fact map, such as ``0_1``."""
    found: dict[str, str] = {}
    queue = [(grouping, "") for grouping in mappings(mapping(down).get("groupings"))]
    while queue and len(found) < 2000:
        grouping, above = queue.pop()
        label = f"{above} / {text(grouping.get('label'))}" if above else text(grouping.get("label"))
        found[text(grouping.get("key"))] = label
        queue += [(inner, label) for inner in mappings(grouping.get("groupings"))]
    return found


CALLS: Mapping[str, Handler] = {
    "query.run": query_run,
    "search.run": search_run,
    "account.search": account_search,
    "account.get": account_get,
    "knowledge.search": knowledge_search,
    "report.list": report_list,
    "report.run": report_run,
}
