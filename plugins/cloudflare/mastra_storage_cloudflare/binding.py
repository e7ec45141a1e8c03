"""Workers KV inside a Python Worker, through the namespaces bound to it.

Bindings may be the raw JavaScript objects, or those that the Workers runtime SDK wraps: both
take JavaScript arguments, and answer with JavaScript objects or with plain dictionaries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from mastra_storage import (
    InvalidArgumentError,
    PartialWriteError,
    RateLimitedError,
    UnavailableError,
)
from mastra_storage_cloudflare.kv import KV, Entry, Found, Listing, Pair

# Workers keep at most six connections open at a time; more only queue up.
_AT_ONCE = 6
_DEFAULT = "default"


class BindingKV(KV):
    """The KV namespaces bound to a Worker, by table name."""

    def __init__(self, bindings: Mapping[str, Any]) -> None:
        self._bindings = {name.removeprefix("mastra_"): kv for name, kv in bindings.items()}
        if not self._bindings:
            raise InvalidArgumentError("bindings names no KV namespace", backend="cloudflare")
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def open(self) -> None:
        """Nothing is to be done."""

    async def close(self) -> None:
        """Nothing is to be done."""

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        binding = self._binding(namespace)
        found = await self._ask(binding.getWithMetadata(_js(list(keys)), "text"))
        # The runtime leaves some odd keys out of its answer: those are asked for one by one.
        left_out = [key for key in keys if key not in found]
        singly = [self._ask(binding.getWithMetadata(key, "text")) for key in left_out]
        found.update(zip(left_out, await asyncio.gather(*singly), strict=True))
        answers = {key: _found(found[key]) for key in keys}
        return {key: answer for key, answer in answers.items() if answer is not None}

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        options: dict[str, Any] = {"prefix": prefix, "limit": limit}
        if cursor is not None:
            options["cursor"] = cursor
        answer = await self._ask(self._binding(namespace).list(_js(options)))
        entries = [Entry(key["name"], _text(key.get("metadata"))) for key in answer["keys"]]
        more = not answer["list_complete"]
        return Listing(entries, answer.get("cursor") or None if more else None)

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        binding = self._binding(namespace)
        keys = [*[pair.key for pair in pairs], *deletes]
        calls = [self._put(binding, pair) for pair in pairs]
        calls += [self._ask(binding.delete(key)) for key in deletes]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        errors = {k: e for k, e in zip(keys, outcomes, strict=True) if isinstance(e, Exception)}
        if not errors:
            return
        first = next(iter(errors.values()))
        if len(errors) == len(keys):
            raise first
        raise PartialWriteError(
            f"KV did not store {len(errors)} of {len(keys)} keys ({first}); try again",
            failed=[(namespace, (key,)) for key in errors],
        ) from first

    async def namespaces(self) -> list[str]:
        return [name for name in self._bindings if name != _DEFAULT]

    async def _put(self, binding: Any, pair: Pair) -> None:
        options: dict[str, Any] = {"metadata": msgspec.json.decode(pair.metadata)}
        if pair.expiration is not None:
            options["expiration"] = pair.expiration
        await self._ask(binding.put(pair.key, pair.value.decode(), _js(options)))

    def _binding(self, namespace: str) -> Any:
        binding = self._bindings.get(namespace, self._bindings.get(_DEFAULT))
        if binding is None:
            raise InvalidArgumentError(
                f"no KV namespace is bound for table {namespace!r}: give bindings[{namespace!r}], "
                f"or bindings[{_DEFAULT!r}] for all that have none of their own"
            )
        return binding

    async def _ask(self, call: Any) -> Any:
        """What a call on a binding answers, as plain Python."""
        async with self._room:
            try:
                return _plain(await call)
            except Exception as exc:  # what JavaScript throws has no class of its own here
                raise _mapped(exc) from exc


def _mapped(exc: Exception) -> Exception:
    text = str(exc)
    if "429" in text:
        return RateLimitedError(
            "KV asks to slow down: one write a second to a key, 1,000 operations to an invocation"
        )
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
