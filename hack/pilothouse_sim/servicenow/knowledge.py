"""The Knowledge Management API: search articles, read one.

https://www.servicenow.com/docs/r/api-reference/rest-apis/knowledge-api.html
"""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from pilothouse_sim.servicenow import access, query
from pilothouse_sim.servicenow.errors import ServiceNowError
from pilothouse_sim.servicenow.http import number_of
from pilothouse_sim.servicenow.schema import fields_of
from pilothouse_sim.servicenow.store import Record, Store, User

_SNIPPET = 150
_TAG = re.compile(r"<[^>]*>")


def plain(text: str) -> str:
    """An article's text without its markup."""
    return " ".join(_TAG.sub(" ", text).split())


class KnowledgeApi:
    """The handlers."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def search(self, request: web.Request, user: User) -> web.Response:
        """Published articles with all words of ``query``, those with the words in the title first."""
        words = request.query.get("query", "").lower().split()
        limit, offset = number_of(request, "limit", 30), number_of(request, "offset", 0)
        names = [name.strip() for name in request.query.get("fields", "").split(",") if name.strip()]
        bases = [part for part in request.query.get("kb", "").split(",") if part]
        articles = [a for a in self.store.all_of("kb_knowledge") if access.may_read(user, a, self.store)]
        articles = [a for a in articles if a["workflow_state"] == "published"]
        asked = query.parse("kb_knowledge", request.query.get("filter", ""))
        articles = query.select(asked, "kb_knowledge", articles, self.store)
        scored = [
            (self._score(article, words), article)
            for article in articles
            if not bases or article["kb_knowledge_base"] in bases
        ]
        found = sorted((entry for entry in scored if entry[0] > 0 or not words), key=lambda entry: -entry[0])
        page = found[offset : offset + limit]
        meta = {
            "start": offset,
            "end": offset + len(page),
            "fields": ",".join(names),
            "query": request.query.get("query", ""),
            "filter": request.query.get("filter", ""),
            "kb": request.query.get("kb", ""),
            "language": request.query.get("language", "en"),
            "count": len(found),
            "ts_query_id": self.store.new_sys_id(),
            "status": {"code": 200},
        }
        shown = [self._view(article, score, rank, names) for rank, (score, article) in enumerate(page, offset + 1)]
        return web.json_response({"result": {"meta": meta, "articles": shown}})

    def _score(self, article: Record, words: list[str]) -> float:
        title, text = article["short_description"].lower(), plain(f"{article['text']} {article['meta']}").lower()
        if not all(word in title or word in text for word in words):
            return 0
        return 1 + sum(4.0 * (word in title) + text.count(word) for word in words)

    def _view(self, article: Record, score: float, rank: int, names: list[str]) -> dict[str, Any]:
        known = fields_of("kb_knowledge")
        fields = {
            name: {
                "display_value": self._shown(article, name),
                "name": name,
                "label": known[name].label,
                "type": known[name].kind,
                "value": article.get(name, ""),
            }
            for name in names
            if name in known
        }
        return {
            "link": f"?id=kb_article_view&sysparm_article={article['number']}&sys_kb_id={article['sys_id']}"
            f"&spa=1&sysparm_rank={rank}",
            "rank": rank,
            "id": f"kb_knowledge:{article['sys_id']}",
            "title": article["short_description"],
            "snippet": plain(article["text"])[:_SNIPPET],
            "score": score,
            "tags": [],
            "number": article["number"],
            "fields": fields,
        }

    def _shown(self, article: Record, name: str) -> str:
        field = fields_of("kb_knowledge")[name]
        value = article.get(name, "")
        return self.store.display(field.reference, value) if field.reference else field.choices.get(value, value)

    async def get(self, request: web.Request, user: User) -> web.Response:
        """One article by its sys_id or number."""
        key = request.match_info["article"]
        article = next(
            (a for a in self.store.all_of("kb_knowledge") if key in (a["sys_id"], a["number"])),
            None,
        )
        if article is None:
            raise ServiceNowError(404, "No Record found", f"Knowledge record with ID {key[:64]} doesn't exist")
        if not access.may_read(user, article, self.store):
            raise ServiceNowError(403, "User Not Authorized", "User doesn't have access to this article")
        answer = {
            "content": article["text"],
            "template": False,
            "number": article["number"],
            "sys_id": article["sys_id"],
            "short_description": article["short_description"],
            "display_attachments": True,
            "attachments": [],
            "embedded_content": [],
        }
        return web.json_response({"result": answer})
