"""What breaks between the workers and a store, changed every moment; the server behind it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from torture.places import STALE_SECONDS, Place, module_of_tests
from torture.relay import Relay

# After a process was killed, what it had sent may still take effect for so long.
_SETTLE_SECONDS = 1.8
# The longer one is longer than a store waits for an answer before it asks again.
_DELAY_MS, _SILENCE_MS = 250, 1_300

_MOMENTS = {
    "staleReadsMs": "late reads",
    "staleListsMs": "late listings",
    "staleShare": "reads now late, now not",
    "cachedMissesMs": "remembered misses",
    "keyIntervalMs": "keys written too often refused",
    "bulkFailures": "keys left out of bulk writes",
    "emptyPages": "empty pages",
}


class Weather(ABC):
    """Faults of one store.

    `faults` counts those that happened, by kind; `restarts` how often the server was away, by a
    restart of its own or behind a gateway that was. `settle` is for how many seconds after a kill
    what the process had sent may still take effect, or not be seen yet; `late` for how many a
    thread's `updated_at` may be behind.
    """

    settle = 0.0
    late = 0.0

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.random = random.Random(f"weather {seed} {place.name}")
        self.faults: Counter[str] = Counter()
        self.restarts = 0

    @classmethod
    @abstractmethod
    async def start(cls, directory: Path, seed: int) -> Self:
        """Start the server, if there is one, with its files in `directory`."""

    @abstractmethod
    async def blow(self) -> None:
        """One moment of it, of a second or so."""

    async def calm(self) -> None:  # noqa: B027 - not all have any
        """No more faults."""

    async def stop(self) -> None:  # noqa: B027
        """End the server, if there is one."""


class SqliteWeather(Weather):
    """Other processes hold the lock of the file."""

    late = 8.0  # half a second, and as long as the file is locked

    @classmethod
    async def start(cls, directory: Path, seed: int) -> Self:
        return cls(Place(name="sqlite", url=str(directory / "torture.db")), seed)

    async def blow(self) -> None:
        await asyncio.sleep(self.random.uniform(0.3, 1.5))
        held = self.random.choice((0.02, 0.1, 0.5, 4.0))
        if await asyncio.to_thread(self._lock, held):
            self.faults["lock held by another process"] += 1

    def _lock(self, held: float) -> bool:
        connection = sqlite3.connect(self.place.url, timeout=0.5, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE torture_lock (n)")
            time.sleep(held)
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False  # a worker has it just now
        finally:
            connection.close()
        return True


class ServerWeather(Weather):
    """Faults that a server of the plugins' tests injects, and connections that break."""

    settle = _SETTLE_SECONDS

    def __init__(self, place: Place, seed: int, server: Any, relay: Relay) -> None:
        super().__init__(place, seed)
        self._server = server
        self._relay = relay
        self._held_until = 0.0  # until when the server may still hold requests

    async def blow(self) -> None:
        settings = self._settings()
        await self._server.control(reset=True, **settings)
        # A request that is held by the server would outlive its connection, and its repetition.
        if not any(fault["kind"] == "delay" for fault in settings["faults"]):
            await asyncio.sleep(self._held_until - time.monotonic())  # those of moments before
            await self._break()
        await asyncio.sleep(self.random.uniform(0.5, 2.0))
        held = [fault["ms"] / 1e3 for fault in settings["faults"] if fault["kind"] == "delay"]
        self._held_until = max(self._held_until, time.monotonic() + max(held, default=0.0))
        await self._note()

    async def _break(self) -> None:
        if self.random.random() < 0.15:
            await self._relay.away(self.random.uniform(0.1, 2.0))
            self.restarts += 1
        for _ in range(self.random.choice((0, 0, 1, 3))):
            await asyncio.sleep(self.random.uniform(0.05, 0.5))
            self.faults["connection cut"] += self._relay.cut() // 2

    async def calm(self) -> None:
        await self._note()
        await self._server.reset(clear=False)

    async def stop(self) -> None:
        await self._relay.stop()
        await asyncio.to_thread(self._server.stop)

    async def _note(self) -> None:
        for entry in await self._server.log():
            if entry.get("fault"):
                self.faults[entry["fault"]] += 1

    def _settings(self) -> dict[str, Any]:
        return {"seed": self.random.randrange(2**31), "faults": self._faults()}

    def _faults(self) -> list[dict[str, Any]]:
        """Some kinds of faults, each with a probability; now and then the server is away."""
        if self.random.random() < 0.08:
            return [{"kind": "drop", "probability": 1.0}]
        if self.random.random() < 0.15:
            return []
        kinds: Sequence[dict[str, Any]] = (
            {"kind": "status", "status": 500},
            {"kind": "status", "status": 500, "when": "after"},
            {"kind": "status", "status": 503, "when": "after"},
            {"kind": "status", "status": 502},
            {"kind": "status", "status": 429, "retryAfter": 1},
            {"kind": "status", "status": 429},
            {"kind": "drop"},
            {"kind": "drop", "when": "after"},
            {"kind": "truncate"},
            {"kind": "malformed"},
            {"kind": "html"},
            {"kind": "html", "when": "after"},
            {"kind": "slow", "ms": _DELAY_MS},
            {"kind": "delay", "ms": _DELAY_MS},
            {"kind": "delay", "ms": _SILENCE_MS},
        )
        chosen = self.random.sample(kinds, self.random.randint(1, 4))
        share = self.random.choice((0.05, 0.2, 0.5, 0.8))
        return [{**fault, "probability": share} for fault in chosen]


class CloudflareWeather(ServerWeather):
    """Beside faults: reads and listings that are late, keys that take no write, empty pages."""

    settle = _SETTLE_SECONDS + STALE_SECONDS

    @classmethod
    async def start(cls, directory: Path, seed: int) -> Self:
        module = module_of_tests("cloudflare", "kv_server")
        server = await asyncio.to_thread(module.KVServer.start, store="memory")
        relay = await Relay.start(server.url)
        place = Place(name="cloudflare", url=relay.url, key=server.token, account=server.account_id)
        return cls(place, seed, server, relay)

    def _settings(self) -> dict[str, Any]:
        late = round(STALE_SECONDS * 1000)
        choices: dict[str, Any] = {
            "staleReadsMs": late,
            "staleListsMs": late,
            "staleShare": self.random.choice((0.3, 1.0)),
            "cachedMissesMs": late,
            "keyIntervalMs": 150,
            "bulkFailures": {"fraction": 0.2, "times": 20},
            "emptyPages": True,
        }
        chosen = self.random.sample([*choices], self.random.randint(0, 4))
        for name in chosen:
            self.faults[f"{_MOMENTS[name]} for a moment"] += 1
        consistency = {name: choices[name] for name in chosen}
        return {**super()._settings(), "consistency": consistency}


class ConvexWeather(ServerWeather):
    """Beside faults: the deployment is stopped and started again, with its documents."""

    _data: Path

    @classmethod
    async def start(cls, directory: Path, seed: int) -> Self:
        module = module_of_tests("convex", "convex_server")
        data = directory / "documents.json"
        server = await asyncio.to_thread(module.ConvexServer.start, data=data)
        relay = await Relay.start(server.url)
        place = Place(name="convex", url=relay.url, key=server.admin_key)
        weather = cls(place, seed, server, relay)
        weather._data = data
        return weather

    async def blow(self) -> None:
        if self.random.random() < 0.1:
            await self._restart()
        await super().blow()

    async def _restart(self) -> None:
        await self._note()
        kind, port = type(self._server), self._server.port
        await asyncio.to_thread(self._server.stop)
        await asyncio.sleep(self.random.uniform(0, 1))
        self._server = await asyncio.to_thread(kind.start, port=port, data=self._data)
        self.restarts += 1


WEATHERS: dict[str, type[Weather]] = {
    "sqlite": SqliteWeather,
    "cloudflare": CloudflareWeather,
    "convex": ConvexWeather,
}
