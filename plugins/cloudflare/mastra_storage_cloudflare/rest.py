"""Workers KV over Cloudflare's REST API."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import stamina
import yarl
from msgspec import Raw, Struct

from mastra_storage import PartialWriteError, RateLimitedError, StorageError, UnavailableError
from mastra_storage_cloudflare._answers import (
    Answer,
    MissingKeyError,
    MissingNamespaceError,
    NamespaceExistsError,
    failure_of,
)
from mastra_storage_cloudflare.budget import RateBudget
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_LIST, Entry, Found, Listing, Pair

BASE_URL = "https://api.cloudflare.com/client/v4"

_CONNECTIONS = 32
_ATTEMPTS = 6
_NAMESPACES_PER_PAGE = 100
_NO_METADATA = Raw(b"null")


class _Namespace(Struct):
    id: str
    title: str


class _Key(Struct):
    name: str
    metadata: Raw = _NO_METADATA


class _Value(Struct):
    value: str | None
    metadata: Raw = _NO_METADATA


class _Values(Struct):
    values: dict[str, _Value | None]


class _Written(Struct):
    unsuccessful_keys: list[str] = []


class _BulkPair(Struct, omit_defaults=True):
    key: str
    value: str
    metadata: Raw
    expiration: int | None = None


class RestKV(KV):
    """The namespaces of an account, titled `{prefix}mastra_{table}`.

    Every call is idempotent, so all are tried again after what passes: a lost connection, a
    5xx, a 429 within the time it asks for.
    """

    def __init__(
        self,
        account_id: str,
        api_token: str,
        *,
        prefix: str = "",
        base_url: str = BASE_URL,
        timeout: float = 30.0,
    ) -> None:
        """`timeout`: seconds a call may take, with all its attempts."""
        url = yarl.URL(base_url)
        path = url.path.rstrip("/") or "/client/v4"
        self._root = (
            f"{url.origin()}{path}/accounts/{quote(account_id, safe='')}/storage/kv/namespaces"
        )
        self._headers = {"Authorization": f"Bearer {api_token}"}
        self._prefix = prefix
        self._timeout = timeout
        self._budget = RateBudget()
        self._session: aiohttp.ClientSession | None = None
        self._ids: dict[str, str] = {}
        self._listing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<RestKV prefix={self._prefix!r}>"

    async def open(self) -> None:
        # KV's servers may close idle connections after five seconds; ours are dropped sooner.
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=4.0)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        await self._load_namespaces()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # -- the calls ---------------------------------------------------------------------------

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        namespace_id = await self._known_id(namespace)
        if namespace_id is None:
            return {}
        body = msgspec.json.encode({"keys": keys, "type": "text", "withMetadata": True})
        answer = await self._call(
            namespace, "POST", f"/{namespace_id}/bulk/get", _Values, body=body
        )
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

    async def _get_one(self, namespace: str, namespace_id: str, key: str) -> Found | None:
        path = f"/{namespace_id}/values/{quote(key, safe='')}"
        try:
            value = await self._call(namespace, "GET", path, None)
            metadata = await self._call(
                namespace, "GET", path.replace("/values/", "/metadata/", 1), Raw
            )
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
            namespace, "GET", f"/{namespace_id}/keys", list[_Key], query=query
        )
        info = answer.result_info or {}
        entries = [Entry(key.name, _text(key.metadata)) for key in answer.result]
        return Listing(entries, info.get("cursor") or None)

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        namespace_id = await self._made_id(namespace) if pairs else await self._known_id(namespace)
        if namespace_id is None:
            return  # deletes from a namespace that is not there
        failed: list[str] = []
        if pairs:
            failed += await self._bulk(
                namespace,
                "PUT",
                f"/{namespace_id}/bulk",
                {pair.key: _bulk_pair(pair) for pair in pairs},
            )
        if deletes:
            path = f"/{namespace_id}/bulk/delete"
            failed += await self._bulk(namespace, "POST", path, {key: key for key in deletes})
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
        for attempt in range(1, _ATTEMPTS):
            body = msgspec.json.encode(list(items.values()))
            answer = await self._call(namespace, method, path, _Written, body=body)
            unsuccessful = set(answer.result.unsuccessful_keys) if answer.result else set()
            items = {key: item for key, item in items.items() if key in unsuccessful}
            if not items:
                break
            # A key takes one write a second.
            await asyncio.sleep(1.0 if attempt > 1 else 0.3)
        return [*items]

    # -- one request -------------------------------------------------------------------------

    async def _call(
        self,
        namespace: str,
        method: str,
        path: str,
        result: Any,
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Any:
        """One call, with its attempts; an `Answer` of `result`, or bytes when that is `None`."""
        url = yarl.URL(self._root + path, encoded=True).with_query(query)
        try:
            async with asyncio.timeout(self._timeout):
                async for attempt in stamina.retry_context(
                    on=self._may_retry, attempts=_ATTEMPTS, timeout=self._timeout, wait_jitter=0.5
                ):
                    with attempt:
                        content = await self._send(method, url, body)
                        return content if result is None else _decoded(content, result)
        except TimeoutError as exc:
            raise UnavailableError(
                f"Cloudflare did not answer within {self._timeout:g} seconds; try again later"
            ) from exc
        except MissingNamespaceError:
            self._ids = {t: n for t, n in self._ids.items() if t != self._title(namespace)}
            raise UnavailableError(
                f"the namespace {self._title(namespace)!r} was deleted while the store was open",
                retryable=False,
            ) from None

        raise AssertionError("the loop returns or raises")

    def _may_retry(self, exc: Exception) -> bool | float:
        """Whether a call is tried again after `exc`, or the seconds after which it is."""
        if not isinstance(exc, StorageError) or not exc.retryable:
            return False
        if isinstance(exc, RateLimitedError) and exc.retry_after is not None:
            return exc.retry_after if exc.retry_after < self._timeout else False
        return True

    async def _send(self, method: str, url: yarl.URL, body: bytes | None) -> bytes:
        if self._session is None:
            raise UnavailableError("the store is closed", retryable=False)
        await self._budget.acquire()
        headers = {"Content-Type": "application/json"} if body is not None else None
        try:
            async with self._session.request(method, url, data=body, headers=headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise UnavailableError(
                f"the connection to Cloudflare failed ({type(exc).__name__}); try again"
            ) from exc
        self._budget.update(response.headers.get("Ratelimit"))
        if response.status != 200:
            failure = failure_of(response.status, content, response.headers.get("Retry-After"))
            if isinstance(failure, RateLimitedError):
                self._budget.pause(failure.retry_after)
            raise failure
        return content

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
                    self._ids[title] = answer.result.id
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
        async with self._listing:
            found: dict[str, str] = {}
            page = 1
            while True:
                query = {"page": str(page), "per_page": str(_NAMESPACES_PER_PAGE)}
                answer = await self._call("", "GET", "", list[_Namespace], query=query)
                for namespace in answer.result:
                    found.setdefault(namespace.title, namespace.id)
                if len(answer.result) < _NAMESPACES_PER_PAGE:
                    break
                page += 1
            self._ids = found

    async def namespaces(self) -> list[str]:
        await self._load_namespaces()
        start = self._title("")
        return [title.removeprefix(start) for title in self._ids if title.startswith(start)]

    def _title(self, namespace: str) -> str:
        return f"{self._prefix}mastra_{namespace}"


def _decoded(content: bytes, result: Any) -> Any:
    try:
        answer = msgspec.json.decode(content, type=Answer[result])
    except msgspec.ValidationError:
        raise failure_of(200, content, None) from None
    except msgspec.MsgspecError as exc:
        raise UnavailableError(
            f"what answered in Cloudflare's place is not JSON ({exc}); check base_url and proxies"
        ) from exc
    if not answer.success:
        raise failure_of(200, content, None)
    return answer


def _bulk_pair(pair: Pair) -> _BulkPair:
    metadata = Raw(pair.metadata.encode())
    return _BulkPair(pair.key, pair.value.decode(), metadata, pair.expiration)


def _text(metadata: Raw) -> str | None:
    return None if metadata == _NO_METADATA else bytes(metadata).decode()
