"""Whether a deployment has what this version needs, and what to do where it has not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct

from mastra_storage import (
    THREADS,
    AuthenticationError,
    Query,
    RateLimitedError,
    StorageError,
    UnavailableError,
    url_options,
)
from mastra_storage_convex._answers import VERIFY, FunctionFailedError
from mastra_storage_convex.client import Client, Settings
from mastra_storage_convex.layout import CONVEX_NAMES
from mastra_storage_convex.options import address_in, is_convex_url, settings_of
from mastra_storage_convex.watching import Watches
from mastra_storage_convex.wire import Found, Outcomes, TableNames, Version

__all__ = ["Check", "State", "checks_of", "settings_for"]

_NAMES = ("server", "key", "functions", "modules", "tables", "live")

_MODULES = (*CONVEX_NAMES.values(), "documents")

# How the command line spells what `ConvexStorage` calls otherwise.
_SPELLED = ("URL", "--deploy-key")

_SECONDS = 10.0

_NO_TABLES = (
    "the schema of the deployment may lack our tables, or have a table of your own under the name "
    "of one of them: `mastra-storage-convex init` says how to add them to a schema of your own; "
    "then deploy, or see `npx convex logs`"
)


class State(Enum):
    """How a check ended; it is not done when one that it builds on has failed."""

    OK = "ok"
    FAILED = "failed"
    NOT_DONE = "not done"


class Check(Struct, omit_defaults=True):
    """One thing that a deployment must have.

    `found` says what was found, `todo` what to do about it when that is not enough.
    """

    name: str
    state: State
    found: str
    todo: str = ""


def settings_for(url: str | None, key: str | None) -> Settings:
    """Where a deployment is, by a URL of this plugin or its address, and with which key.

    What is not given comes from the environment. Raises `InvalidArgumentError`.
    """
    if url is None or not is_convex_url(url):
        return settings_of(url, key, timeout=_SECONDS, names=_SPELLED)
    given = {} if key is None else {"deploy_key": key}
    options = url_options(url, given, allowed=("deploy_key", "timeout"))
    return settings_of(
        address_in(url),
        options.get("deploy_key"),
        timeout=options.get("timeout", _SECONDS),
        names=_SPELLED,
    )


async def checks_of(settings: Settings) -> list[Check]:
    """What a deployment has of what this version needs, in the order it builds on each other.

    Nothing is written. What cannot be checked, as something before it failed, is `NOT_DONE`.
    """
    client = Client(settings)
    try:
        checks = [check async for check in _checks(client)]
    finally:
        await client.close()
    left = _NAMES[len(checks) :]
    return [*checks, *(Check(name, State.NOT_DONE, "needs what is above") for name in left)]


async def _checks(client: Client) -> AsyncIterator[Check]:
    """The checks up to the first that failed."""
    try:
        await client.open()
    except (UnavailableError, RateLimitedError) as exc:
        yield _failed("server", exc)
        return
    except AuthenticationError as exc:
        yield _answers(client)
        yield _failed("key", exc)
        return
    except StorageError as exc:
        yield _answers(client)
        yield Check("key", State.OK, "accepted")
        yield _failed("functions", exc)
        return
    yield _answers(client)
    yield Check("key", State.OK, "accepted")
    steps = (_version, _modules, _tables, _live)
    for name, ask in zip(_NAMES[2:], steps, strict=True):
        yield (check := await _asked(name, ask, client))
        if check.state is State.FAILED:
            return


def _answers(client: Client) -> Check:
    return Check("server", State.OK, f"{client.settings.url} answers")


async def _asked(name: str, ask: Callable[[Client], Awaitable[str]], client: Client) -> Check:
    try:
        return Check(name, State.OK, await ask(client))
    except StorageError as exc:
        return _failed(name, exc)


def _failed(name: str, error: StorageError) -> Check:
    found, _, todo = error.message.partition("; ")
    if type(error) in (StorageError, FunctionFailedError) and name in ("modules", "tables"):
        todo = _NO_TABLES  # functions are there, and fail for a reason of which Convex says little
    return Check(name, State.FAILED, found, todo.removesuffix(VERIFY))


async def _version(client: Client) -> str:
    found: Version = await client.query("system:version", {}, Version)
    return f"of version {found.version}, protocol {found.protocol:g}"


async def _modules(client: Client) -> str:
    for module in _MODULES:
        of_whom = {"table": ""} if module == "documents" else {}
        await client.query(f"{module}:get", {"keys": [], **of_whom}, Found[Any])
    nothing = msgspec.json.encode({"calls": [], "store": "", "number": 0})
    await client.mutate("system:write", nothing, Outcomes)
    return f"{', '.join(_MODULES)}, system answer"


async def _tables(client: Client) -> str:
    found: TableNames = await client.query("system:tables", {}, TableNames)
    names = [*found.core, *found.documents]
    return f"rows in {', '.join(names)}" if names else "no row in any yet"


async def _live(client: Client) -> str:
    watches = Watches(client.settings, client.check)
    try:
        async with aclosing(watches.watch(Query(table=THREADS, limit=1))) as states:
            await anext(states)
    finally:
        await watches.close()
    return "its WebSocket answers"
