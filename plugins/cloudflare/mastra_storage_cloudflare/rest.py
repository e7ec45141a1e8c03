"""Workers KV over Cloudflare's REST API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from mastra_storage import PartialWriteError, StorageError, TooLargeError, UnavailableError
from mastra_storage_cloudflare._answers import (
    MissingKeyError,
    MissingNamespaceError,
    NamespaceExistsError,
)
from mastra_storage_cloudflare.client import BASE_URL, Client
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_LIST, Entry, Found, Listing, Pair

__all__ = ["BASE_URL", "RestKV"]

_ATTEMPTS = 6
# A key takes one write a second; what KV did not store is tried again after so long.
_SECONDS_BETWEEN_WRITES = 1.1
_NAMESPACES_PER_PAGE = 100
_NO_METADATA = Raw(b"null")

_log = logging.getLogger("mastra_storage.cloudflare")


class _Namespace(Struct):
    id: str
    title: str


class _Key(Struct, gc=False):
    name: str
    metadata: Raw = _NO_METADATA


class _Value(Struct, gc=False):
    value: str | None
    metadata: Raw = _NO_METADATA


class _Values(Struct):
    values: dict[str, _Value | None]


class _Written(Struct):
    unsuccessful_keys: list[str] | None = None


class _BulkPair(Struct, omit_defaults=True, gc=False):
    key: str
    value: str
    metadata: Raw = _NO_METADATA
    expiration: int | None = None


class RestKV(KV):
    """The namespaces of an account, titled `{prefix}mastra_{table}`.

    Their ids are known from the first listing on; one is made at the first write to its table.
    """

    def __init__(
        self, account_id: str, api_token: str, *, prefix: str = "", **options: Any
    ) -> None:
        """`options` are those of `Client`."""
        self._client = Client(account_id, api_token, **options)
        self._prefix = prefix
        self._ids: dict[str, str] = {}
        self._made: dict[str, str] = {}
        self._listings = 0

    def __repr__(self) -> str:
        return f"<RestKV prefix={self._prefix!r}>"

    async def open(self) -> None:
        self._listing = asyncio.Lock()  # of this event loop
        await self._client.open()
        # A token or account that is refused is so at once.
        await self._load_namespaces()

    async def close(self) -> None:
        await self._client.close()

    # -- the calls ---------------------------------------------------------------------------

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        namespace_id = await self._known_id(namespace)
        if namespace_id is None:
            return {}
        body = msgspec.json.encode({"keys": keys, "type": "text", "withMetadata": True})
        try:
            answer = await self._call(
                namespace, "POST", f"/{namespace_id}/bulk/get", _Values, body=body, reads=True
            )
        except TooLargeError:
            return await self._get_in_parts(namespace, namespace_id, keys)
        found = {
            key: Found(value.value.encode(), _text(value.metadata))
            for key, value in answer.result.values.items()
            if value is not None and value.value is not None
        }
        # Some servers leave odd keys out of their answer: not there is not the same as missing.
        for key in keys:
            if key not in answer.result.values and (
                one := await self._get_one(namespace, namespace_id, key)
            ):
                found[key] = one
        return found

    async def _get_in_parts(
        self, namespace: str, namespace_id: str, keys: Sequence[str]
    ) -> dict[str, Found]:
        """Values that are too large to come in one answer."""
        if len(keys) == 1:
            one = await self._get_one(namespace, namespace_id, keys[0])
            return {} if one is None else {keys[0]: one}
        half = len(keys) // 2
        return await self.get(namespace, keys[:half]) | await self.get(namespace, keys[half:])

    async def _get_one(self, namespace: str, namespace_id: str, key: str) -> Found | None:
        path = f"/{namespace_id}/values/{quote(key, safe='')}"
        try:
            value = await self._call(namespace, "GET", path, None, reads=True)
            path = path.replace("/values/", "/metadata/", 1)
            metadata = await self._call(namespace, "GET", path, Raw, reads=True)
        except MissingKeyError:
            return None
        return Found(value, _text(metadata.result))

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        namespace_id = await self._known_id(namespace)
        if namespace_id is None:
            return Listing([], None)
        # The API takes limits from 10 on.
        query = {"prefix": prefix, "limit": str(min(max(limit, 10), MAX_KEYS_OF_LIST))}
        if cursor:
            query["cursor"] = cursor
        answer = await self._call(
            namespace, "GET", f"/{namespace_id}/keys", list[_Key], query=query, reads=True
        )
        info = answer.result_info or {}
        entries = [Entry(key.name, _text(key.metadata)) for key in answer.result]
        if not all(entry.key.startswith(prefix) for entry in entries):
            raise StorageError(  # what is deleted by a prefix must not be anything else
                "what answered lists other keys than those with the prefix that was asked for; "
                "check base_url and proxies"
            )
        return Listing(entries, info.get("cursor") or None)

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        namespace_id = await self._made_id(namespace) if pairs else await self._known_id(namespace)
        if namespace_id is None:
            return  # deletes from a namespace that is not there
        puts = {pair.key: _bulk_pair(pair) for pair in pairs}
        failed = await self._bulk(namespace, "PUT", f"/{namespace_id}/bulk", puts)
        removed = {key: key for key in deletes}
        failed += await self._bulk(namespace, "POST", f"/{namespace_id}/bulk/delete", removed)
        if failed:
            raise PartialWriteError(
                f"KV did not store {len(failed)} of {len(pairs) + len(deletes)} keys, though asked "
                "repeatedly; try again",
                failed=[(namespace, (key,)) for key in failed],
            )

    async def _bulk(
        self, namespace: str, method: str, path: str, items: dict[str, Any]
    ) -> list[str]:
        """Write in bulk, the keys that KV reports as unsuccessful again; gives those that stay."""
        for attempt in range(_ATTEMPTS):
            if not items:
                break
            if attempt:
                _log.debug("KV left out %d keys; attempt %d", len(items), attempt + 1)
                await asyncio.sleep(_SECONDS_BETWEEN_WRITES)
            body = msgspec.json.encode(list(items.values()))
            answer = await self._call(namespace, method, path, _Written | None, body=body)
            unsuccessful = set((answer.result and answer.result.unsuccessful_keys) or ())
            items = {key: item for key, item in items.items() if key in unsuccessful}
        return [*items]

    async def _call(
        self, namespace: str, method: str, path: str, result: Any, **request: Any
    ) -> Any:
        """`Client.call` on a namespace, which is forgotten when it is not there any more."""
        try:
            return await self._client.call(method, path, result, **request)
        except MissingNamespaceError as exc:
            title = self._title(namespace)
            self._ids.pop(title, None)
            self._made.pop(title, None)
            raise UnavailableError(
                f"the namespace {title!r} was deleted while the store was open", retryable=False
            ) from exc

    # -- namespaces --------------------------------------------------------------------------

    async def _known_id(self, namespace: str) -> str | None:
        """The id of a namespace; `None` when it is not there. Reads never make one."""
        title = self._title(namespace)
        if title not in self._ids:
            await self._load_namespaces()
        return self._ids.get(title)

    async def _made_id(self, namespace: str) -> str:
        """The id of a namespace, which is made when it is not there."""
        title = self._title(namespace)
        async with self._listing:
            if title not in self._ids:
                body = msgspec.json.encode({"title": title})
                try:
                    answer = await self._call(namespace, "POST", "", _Namespace, body=body)
                    self._ids[title] = self._made[title] = answer.result.id
                except NamespaceExistsError:
                    pass
        if title not in self._ids:
            await self._load_namespaces()
        if title not in self._ids:
            raise UnavailableError(
                f"the namespace {title!r} exists, but the account's listing does not show it yet; "
                "try again in a minute"
            )
        return self._ids[title]

    async def _load_namespaces(self) -> None:
        listings = self._listings
        async with self._listing:
            if self._listings != listings:
                return  # another call did it meanwhile
            found: dict[str, str] = {}
            page = 1
            while True:
                query = {"page": str(page), "per_page": str(_NAMESPACES_PER_PAGE)}
                answer = await self._call("", "GET", "", list[_Namespace], query=query, reads=True)
                for namespace in answer.result:
                    found.setdefault(namespace.title, namespace.id)
                if len(answer.result) < _NAMESPACES_PER_PAGE:
                    break
                page += 1
            # The listing may not show yet what was just made.
            self._ids = found | self._made
            self._listings += 1

    async def namespaces(self) -> list[str]:
        await self._load_namespaces()
        start = self._title("")
        return [title.removeprefix(start) for title in self._ids if title.startswith(start)]

    def _title(self, namespace: str) -> str:
        return f"{self._prefix}mastra_{namespace}"


def _bulk_pair(pair: Pair) -> _BulkPair:
    metadata = Raw(pair.metadata.encode()) if pair.metadata else _NO_METADATA
    return _BulkPair(pair.key, pair.value.decode(), metadata, pair.expiration)


def _text(metadata: Raw) -> str | None:
    return None if metadata == _NO_METADATA else bytes(metadata).decode()
