"""The way between the workers and a server: it can be cut, and be away for a while."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 2**16


class Relay:
    """Hands on what comes and goes between clients and a server, connection by connection."""

    url: str

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._own_port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    async def start(cls, url: str) -> Self:
        """A relay to `url`; its own `url` is the same with another port."""
        parts = urlsplit(url)
        relay = cls(parts.hostname or "", parts.port or 80)
        await relay._listen()
        relay.url = urlunsplit(parts._replace(netloc=f"{relay._host}:{relay._own_port}"))
        return relay

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, self._own_port)
        self._own_port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> int:
        """Break all connections, wherever in a request or an answer they are."""
        for writer in self._writers:
            writer.transport.abort()
        return len(self._writers)

    async def away(self, seconds: float) -> None:
        """Break all connections, and refuse new ones for so long."""
        await self.stop()
        await asyncio.sleep(seconds)
        await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            self._writers -= {writer, back}
            writer.transport.abort()
            back.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Hand on until one side ends; then the other ends, too."""
    with suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
    with suppress(OSError, RuntimeError):
        sink.close()
