"""Workers KV inside a Python Worker, through the namespaces bound to it.

Bindings may be the raw JavaScript objects, or those that the Workers runtime SDK wraps: both
take JavaScript arguments, and answer with JavaScript objects or with plain dictionaries.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from mastra_storage import (
    InvalidArgumentError,
    PartialWriteError,
    RateLimitedError,
    StorageError,
    TooLargeError,
    UnavailableError,
)
from mastra_storage_cloudflare.kv import (
    KV,
    MAX_KEYS_OF_LIST,
    Entry,
    Found,
    Listing,
    Pair,
    RefusedCursorError,
)

# Workers keep at most six connections open at a time; more only queue up.
_AT_ONCE = 6
_DEFAULT = "default"

# A key takes one write a second; another Worker's may have come first.
_ATTEMPTS = 3
_SECONDS_BETWEEN = 1.1

_STATUS = re.compile(r"failed: (\d{3})\b")


class BindingKV(KV):
    """The KV namespaces bound to a Worker, by table name.

    Names may begin with `mastra_`; the one called `default` serves all tables that have none of
    their own. `prefix` is that of the keys.
    """

    def __init__(self, bindings: Mapping[str, Any], *, prefix: str = "") -> None:
        self._bindings = {name.removeprefix("mastra_"): kv for name, kv in bindings.items()}
        if not self._bindings:
            raise InvalidArgumentError("bindings names no KV namespace", backend="cloudflare")
        self._prefix = prefix
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def open(self) -> None:
        """Nothing is to be done."""

    async def close(self) -> None:
        """Nothing is to be done."""

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        binding = self._binding(namespace)
        try:
            found = await self._ask(lambda: binding.getWithMetadata(_js(list(keys)), "text"))
        except TooLargeError:
            if len(keys) == 1:
                raise
            # The values of one bulk get may have 25 MiB together.
            half = len(keys) // 2
            parts = [self.get(namespace, keys[:half]), self.get(namespace, keys[half:])]
            first, second = await asyncio.gather(*parts)
            return first | second
        # The runtime leaves some odd keys out of its answer: those are asked for one by one.
        left_out = [key for key in keys if key not in found]
        singly = [self._get_one(binding, key) for key in left_out]
        found.update(zip(left_out, await asyncio.gather(*singly), strict=True))
        answers = {key: _found(found[key]) for key in keys}
        return {key: answer for key, answer in answers.items() if answer is not None}

    async def _get_one(self, binding: Any, key: str) -> Any:
        return await self._ask(lambda: binding.getWithMetadata(key, "text"))

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        binding = self._binding(namespace)
        options: dict[str, Any] = {"prefix": prefix, "limit": min(limit, MAX_KEYS_OF_LIST)}
        if cursor is not None:
            options["cursor"] = cursor
        try:
            answer = await self._ask(lambda: binding.list(_js(options)))
        except StorageError as exc:
            # Nothing else of what is asked is anything that KV could refuse.
            if cursor is None or type(exc) is not StorageError:
                raise
            raise RefusedCursorError(exc.message) from exc
        entries = [Entry(key["name"], _text(key.get("metadata"))) for key in answer["keys"]]
        more = not answer["list_complete"]
        return Listing(entries, answer.get("cursor") or None if more else None)

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        binding = self._binding(namespace)
        errors = await self._errors({pair.key: self._put(binding, pair) for pair in pairs})
        # A key that is deleted may be the old place of a pair, which must not go before the new
        # one is there.
        undone = dict.fromkeys(deletes, next(iter(errors.values()))) if errors else {}
        if not errors:
            errors = await self._errors({key: self._delete(binding, key) for key in deletes})
        errors |= undone
        if not errors:
            return
        count = len(pairs) + len(deletes)
        first = next(iter(errors.values()))
        if len(errors) == count:
            raise first
        raise PartialWriteError(
            f"KV did not store {len(errors)} of {count} keys ({first}); try again",
            failed=[(namespace, (key,)) for key in errors],
        ) from first

    async def _errors(self, calls: Mapping[str, Awaitable[None]]) -> dict[str, StorageError]:
        """What became of calls on keys: the errors of those that failed."""
        outcomes = await asyncio.gather(*calls.values(), return_exceptions=True)
        errors: dict[str, StorageError] = {}
        for key, outcome in zip(calls, outcomes, strict=True):
            if isinstance(outcome, StorageError):
                errors[key] = outcome
            elif outcome is not None:
                raise outcome
        return errors

    async def namespaces(self) -> list[str]:
        names = dict.fromkeys(name for name in self._bindings if name != _DEFAULT)
        if _DEFAULT in self._bindings:
            names |= dict.fromkeys(await self._tables_of_default())
        return list(names)

    async def _tables_of_default(self) -> list[str]:
        """The tables whose records are in the default namespace."""
        start = f"{self._prefix}mastra_"
        found: dict[str, None] = {}
        cursor: str | None = None
        while True:
            listing = await self.keys(_DEFAULT, start, cursor=cursor, limit=MAX_KEYS_OF_LIST)
            for entry in listing.entries:
                name, colon, _ = entry.key.removeprefix(start).partition(":")
                if colon and "." not in name:
                    found[name] = None
            cursor = listing.cursor
            if cursor is None:
                return list(found)

    async def _put(self, binding: Any, pair: Pair) -> None:
        options: dict[str, Any] = {}
        if pair.metadata:
            options["metadata"] = msgspec.json.decode(pair.metadata)
        if pair.expiration is not None:
            options["expiration"] = pair.expiration
        await self._write_one(lambda: binding.put(pair.key, pair.value.decode(), _js(options)))

    async def _delete(self, binding: Any, key: str) -> None:
        await self._write_one(lambda: binding.delete(key))

    async def _write_one(self, call: Callable[[], Any]) -> None:
        for _ in range(_ATTEMPTS - 1):
            try:
                await self._ask(call)
            except RateLimitedError as exc:
                if not exc.retryable:
                    raise
                await asyncio.sleep(_SECONDS_BETWEEN)
            else:
                return
        await self._ask(call)

    def _binding(self, namespace: str) -> Any:
        binding = self._bindings.get(namespace, self._bindings.get(_DEFAULT))
        if binding is None:
            raise InvalidArgumentError(
                f"no KV namespace is bound for table {namespace!r}: give bindings[{namespace!r}], "
                f"or bindings[{_DEFAULT!r}] for all that have none of their own"
            )
        return binding

    async def _ask(self, call: Callable[[], Any]) -> Any:
        """What a call on a binding answers, as plain Python."""
        async with self._room:
            try:
                return _plain(await call())
            except Exception as exc:  # what JavaScript throws has no class of its own here
                raise _mapped(exc) from exc


def _mapped(exc: Exception) -> StorageError:
    """The error that one of a binding's stands for. It says a status, as "KV PUT failed: 429"."""
    text = str(exc)
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    if "API requests" in text or "subrequests" in text:
        return RateLimitedError(
            "this invocation of the Worker has used up its operations on KV; do less in one "
            "request, or save messages in smaller batches",
            retryable=False,
        )
    if status == 429:
        return RateLimitedError("KV asks to slow down: a key takes one write a second; try again")
    if status in (413, 414):
        return TooLargeError(f"KV refused a key, value or metadata of this size (HTTP {status})")
    if 400 <= status < 500:
        return StorageError(f"KV refused the request (HTTP {status})")
    return UnavailableError(f"the KV binding failed ({type(exc).__name__}); try again")


def _js(value: Any) -> Any:
    """A list or dictionary as a JavaScript object."""
    from js import Object  # type: ignore[import-not-found]  # only there inside a Worker
    from pyodide.ffi import to_js  # type: ignore[import-not-found]

    return to_js(value, dict_converter=Object.fromEntries)


def _plain(value: Any) -> Any:
    """A JavaScript answer as Python; what is Python already stays."""
    return value.to_py() if hasattr(value, "to_py") else value


def _found(answer: Any) -> Found | None:
    # A miss is None, JavaScript's null (which is falsy but not None), or null as the value.
    value = answer.get("value") if isinstance(answer, dict) else None
    if not isinstance(value, str):
        return None
    return Found(value.encode(), _text(answer.get("metadata")))


def _text(metadata: Any) -> str | None:
    return msgspec.json.encode(metadata).decode() if isinstance(metadata, dict) else None
