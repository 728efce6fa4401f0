"""The Attachment API: list, upload, metadata, bytes, delete.

https://www.servicenow.com/docs/r/api-reference/rest-apis/c_AttachmentAPI.html
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from pilothouse_sim.servicenow import access, query
from pilothouse_sim.servicenow.errors import ServiceNowError, acl, no_query_rights, no_record
from pilothouse_sim.servicenow.http import MAX_LIMIT, base_of, number_of
from pilothouse_sim.servicenow.schema import TABLES
from pilothouse_sim.servicenow.store import Record, Store, User

MAX_BYTES = 2 << 20
"""Property ``com.glide.attachment.max_size``; an instance has 1 GB, the stand-in keeps its memory small."""


class AttachmentApi:
    """The handlers; ``clock`` gives epoch seconds."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store = store
        self.clock = clock

    def _view(self, record: Record, base: str) -> dict[str, Any]:
        return {**record, "download_link": f"{base}/api/now/attachment/{record['sys_id']}/file", "sys_tags": ""}

    async def list(self, request: web.Request, user: User) -> web.Response:
        """Attachments of records that the user may read."""
        asked = query.parse("sys_attachment", request.query.get("sysparm_query", ""))
        if not access.may_query(user, "sys_attachment"):
            raise no_query_rights()
        found = query.select(asked, "sys_attachment", self.store.all_of("sys_attachment"), self.store)
        limit, offset = number_of(request, "sysparm_limit", 1000), number_of(request, "sysparm_offset", 0)
        page = [r for r in found[offset : offset + min(limit, MAX_LIMIT)] if access.may_read(user, r, self.store)]
        response = web.json_response({"result": [self._view(record, base_of(request)) for record in page]})
        response.headers["X-Total-Count"] = str(len(found))
        return response

    async def upload(self, request: web.Request, user: User) -> web.Response:
        """``POST /attachment/file?table_name=…&table_sys_id=…&file_name=…`` with the bytes as the body."""
        missing = [name for name in ("table_name", "table_sys_id", "file_name") if not request.query.get(name)]
        if missing:
            raise ServiceNowError(400, "Missing required parameter", f"{missing[0]} is required")
        table, parent_id, name = (request.query[key] for key in ("table_name", "table_sys_id", "file_name"))
        if not request.headers.get("Content-Type"):
            raise ServiceNowError(400, "Missing required header", "Content-Type is required")
        parent = self.store.find(table, parent_id) if table in TABLES else None
        if parent is None or not access.may_read(user, parent, self.store):
            raise no_record()
        if not access.may_write(user, parent):
            raise acl("Insert")
        content = await request.read()
        if not content:
            raise ServiceNowError(400, "Empty file", "The request has no content to attach.")
        if len(content) > MAX_BYTES:
            raise ServiceNowError(413, "File too large", f"The file is larger than {MAX_BYTES} bytes.")
        record = self.store.new_record("sys_attachment", user, self.clock())
        record.update(
            file_name=name,
            content_type=request.content_type,
            size_bytes=str(len(content)),
            size_compressed=str(len(content)),
            compressed="true",
            table_name=parent["sys_class_name"],
            table_sys_id=parent_id,
            state="available",
            hash=hashlib.sha256(content).hexdigest(),
        )
        self.store.save_attachment(record, base64.b64encode(content).decode())
        response = web.json_response({"result": self._view(record, base_of(request))}, status=201)
        response.headers["Location"] = f"{base_of(request)}/api/now/attachment/{record['sys_id']}"
        return response

    def _record(self, request: web.Request, user: User) -> Record:
        record = self.store.find("sys_attachment", request.match_info["sys_id"])
        if record is None or not access.may_read(user, record, self.store):
            raise no_record()
        return record

    async def get(self, request: web.Request, user: User) -> web.Response:
        """Metadata of one attachment."""
        return web.json_response({"result": self._view(self._record(request, user), base_of(request))})

    async def file(self, request: web.Request, user: User) -> web.Response:
        """The bytes of one attachment."""
        record = self._record(request, user)
        content = base64.b64decode(self.store.content_of(record["sys_id"]))
        return web.Response(body=content, content_type=record["content_type"])

    async def delete(self, request: web.Request, user: User) -> web.Response:
        """Deletes an attachment; its uploader may."""
        record = self._record(request, user)
        if not access.may_delete(user, record):
            raise acl("Delete")
        self.store.delete(record)
        return web.Response(status=204)
