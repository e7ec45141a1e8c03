"""A process that carries out lanes of a plan, until it is done or killed."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from msgspec import Struct

from mastra_storage import Storage, StorageError
from torture.calls import carry_out, outcome_of, patient
from torture.journal import Journal, begun
from torture.places import Place
from torture.plan import Call, plan, watched
from torture.plants import planted
from torture.watches import Watches, path_of

FULL_DISK = "disk full for a moment"
_OPEN_ATTEMPTS = 20
# So much is watched by each store in a worker.
_WATCHES = 3


class Work(Struct, frozen=True, kw_only=True):
    """What a worker has to do; it is handed to its process.

    - `lanes`: for each store that it opens, the lanes that share it; `of` are there in all.
    - `calls`: how many operations a lane has; `deadline`: seconds after which one hangs.
    - `plant`: the defect planted into the backend, if any.
    - `full_disk`: whether the disk is full for moments, as far as this process is concerned.
    """

    seed: int
    place: Place
    directory: Path
    lanes: tuple[tuple[int, ...], ...]
    of: int
    calls: int
    deadline: float
    plant: str | None = None
    full_disk: bool = False


def run(work: Work, life: int, begins: Connection) -> None:
    """The process: ends with 0 when all its lanes are at their end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(work, life, begins))


async def _run(work: Work, life: int, begins: Connection) -> None:
    stray = work.directory / f"stray.{work.lanes[0][0]}.{life}"
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: _note(stray, f"{context.get('message')}: {context.get('exception')!r}")
    )
    weather = asyncio.create_task(_full_disks(work, life)) if work.full_disk else None
    async with asyncio.TaskGroup() as group:
        for lanes in work.lanes:
            group.create_task(_store(work, life, lanes, begins))
    if weather is not None:
        weather.cancel()


def _note(path: Path, text: str) -> None:
    """Keep what went wrong where nobody was there to be told."""
    with path.open("a") as file:
        file.write(text + "\n")


async def _store(work: Work, life: int, lanes: tuple[int, ...], begins: Connection) -> None:
    """One store, and the lanes that share it."""
    if all(begun(work.directory, lane) >= work.calls for lane in lanes):
        return
    storage = await _opened(work)
    some = watched(f"{work.seed} {life}", lanes)[:_WATCHES]
    path = path_of(work.directory, f"{lanes[0]:04}.{life:06}")
    async with Watches(storage, some, path), asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(_Lane(work, storage, lane, life, begins).run())
    with suppress(StorageError):  # what is written late, such as touches in KV, cannot be
        await asyncio.wait_for(storage.close(), work.deadline)


async def _opened(work: Work) -> Storage:
    """A store that is open, however often that takes while the server is away."""
    for attempt in range(_OPEN_ATTEMPTS):
        storage = Storage(planted(work.place.backend(), work.plant))
        try:
            await storage.open()
        except StorageError:
            if attempt == _OPEN_ATTEMPTS - 1:
                raise
            await asyncio.sleep(0.3)
        else:
            return storage
    raise AssertionError("unreachable")


class _Lane:
    """The operations of a lane, one after the other."""

    def __init__(
        self, work: Work, storage: Storage, lane: int, life: int, begins: Connection
    ) -> None:
        self._work = work
        self._storage = storage
        self._lane = lane
        self._life = life
        self._begins = begins

    async def run(self) -> None:
        work = self._work
        first = begun(work.directory, self._lane)
        calls = plan(work.seed, self._lane, work.of, work.calls)
        with Journal(work.directory, self._lane, self._life) as journal:
            for number in range(first, len(calls)):
                await self._one(journal, number, calls[number])

    async def _one(self, journal: Journal, number: int, call: Call) -> None:
        token = f"{self._lane}.{number}"
        journal.begin(number)
        os.write(self._begins.fileno(), b".")
        doing = asyncio.create_task(outcome_of(carry_out(self._storage, call, token, self._lane)))
        if call.patience is not None:
            await patient(doing, call.patience)
            doing.cancel()
        done, _ = await asyncio.wait([doing], timeout=self._work.deadline)
        if not done:
            doing.cancel()
            journal.end(number, "hung", repr(doing.get_stack()))
        elif doing.cancelled():
            journal.end(number, "cancelled")
        else:
            journal.end(number, *doing.result())
        await asyncio.sleep(0)


async def _full_disks(work: Work, life: int) -> None:
    """Now and then no file may become larger than it is: the disk is full."""
    gusts = random.Random(f"disk {work.seed} {work.lanes} {life}")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    while True:
        await asyncio.sleep(gusts.uniform(0.2, 1.5))
        resource.setrlimit(resource.RLIMIT_FSIZE, (gusts.choice((2**19, 2**20)), hard))
        _note(work.directory / f"faults.{work.lanes[0][0]}.{life}", FULL_DISK)
        await asyncio.sleep(gusts.uniform(0.01, 0.15))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def main(work: Work, life: int, begins: Connection) -> None:
    """Entry of the process, which tells of each operation that begins.

    Its errors are those of the campaign.
    """
    try:
        run(work, life, begins)
    except BaseException as exc:
        print(f"worker {work.lanes} failed: {exc!r}", file=sys.stderr)
        raise
