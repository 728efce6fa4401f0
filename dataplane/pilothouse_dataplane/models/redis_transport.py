"""A connection that redis-py opens (address, TLS, authentication, database) and whose bytes are ours from then on."""

from __future__ import annotations

import asyncio
from typing import Any


async def take_over(pool: Any, protocol: asyncio.Protocol) -> tuple[Any, asyncio.Transport]:
    """A new connection to where ``pool``'s lead, in RESP2 (so that nothing comes unasked), with ``protocol`` in the
    place of redis-py's own. The first of the pair keeps its streams alive. Raises RedisError, OSError."""
    options = {name: value for name, value in pool.connection_kwargs.items() if "maint" not in name}
    connection = pool.connection_class(**(options | {"protocol": 2}))
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    transport: asyncio.Transport = connection._writer.transport
    transport.set_protocol(protocol)
    return connection, transport
