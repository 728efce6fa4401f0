"""One instance: who the user is in it, whether it keeps our keys, and where people see its records."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass

from pilothouse_dataplane.connectors.base import CallContext, Refused
from pilothouse_dataplane.connectors.servicenow import query, values
from pilothouse_dataplane.connectors.servicenow.client import ServiceNowClient
from pilothouse_dataplane.core.messages import Citation

CORRELATION_DISPLAY = "pilothouse"
SERVICE_ACCOUNT = "service account "
"""How an account begins that is not a person's."""
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_./:-]{1,100}")
"""What ``correlation_id`` holds (100 characters), and an encoded query carries as itself."""
_REMEMBERED = 2_000


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the instance."""

    sys_id: str
    user_name: str


def correlation_id(key: str) -> str:
    """The idempotency key as it is stored."""
    return key if _PLAIN_KEY.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()


def account_of(context: CallContext) -> str:
    """As whom the call is made."""
    return context.credential.account if context.credential is not None else ""


class Instance:
    """What the tools share. Nothing in it is a secret; it is bounded."""

    def __init__(self, client: ServiceNowClient) -> None:
        self.client = client
        self._people: OrderedDict[str, Person] = OrderedDict()
        self._keeping: OrderedDict[tuple[str, str], bool] = OrderedDict()

    def link(self, table: str, sys_id: str) -> str:
        """Where a person sees the record."""
        return f"{self.client.base_url}/{table}.do?sys_id={sys_id}" if sys_id else self.client.base_url

    def cite(self, title: str, url: str) -> Citation:
        return Citation(title.strip()[:255], url)

    async def me(self, context: CallContext) -> Person:
        """The asking user, found by her e-mail and remembered. Raises ConnectorError."""
        account = account_of(context)
        email = account if "@" in account and not account.startswith(SERVICE_ACCOUNT) else context.user_email
        email = email.casefold()
        if (known := self._people.get(email)) is not None:
            self._people.move_to_end(email)
            return known
        page = await self.client.rows(
            "sys_user",
            context,
            where=query.every(query.equals("email", email), query.equals("active", "true")),
            fields=("sys_id", "user_name", "email", "name"),
            limit=2,
        )
        found = [r for r in page.records if values.raw(r, "email").casefold() == email]
        if len(found) != 1:
            what = "several users" if found else "no user that you may see"
            raise Refused(
                f"ServiceNow has {what} with the e-mail {email}, so nothing was changed. Ask a ServiceNow "
                "administrator to correct your user record."
            )
        person = Person(values.raw(found[0], "sys_id"), values.raw(found[0], "user_name"))
        self._people[email] = person
        while len(self._people) > _REMEMBERED:
            self._people.popitem(last=False)
        return person

    def learn_keeping(self, table: str, context: CallContext, *, kept: bool) -> None:
        """An answer to a create has shown whether this user's ``correlation_id`` is stored and shown to her."""
        self._keeping[(account_of(context) or context.user_email, table)] = kept
        while len(self._keeping) > _REMEMBERED:
            self._keeping.popitem(last=False)

    async def keeps_keys(self, table: str, context: CallContext) -> bool:
        """Whether it is known that a key which this user writes is kept and shown to her: without that, a look-up that
        finds nothing proves nothing. Raises ConnectorError."""
        account = account_of(context)
        known = self._keeping.get((account or context.user_email, table))
        if known is not None:
            return known
        mine = ""
        if not account.startswith(SERVICE_ACCOUNT):
            mine = query.equals("sys_created_by", (await self.me(context)).user_name)
        record = await self.client.find(
            table,
            context,
            where=query.every(query.equals("correlation_display", CORRELATION_DISPLAY), mine),
            fields=("correlation_id", "correlation_display"),
        )
        kept = (
            record is not None
            and values.raw(record, "correlation_display") == CORRELATION_DISPLAY
            and bool(values.raw(record, "correlation_id"))
        )
        if kept:
            self.learn_keeping(table, context, kept=True)
        return kept
