"""What the API answers, and which error an answer is."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from mastra_storage import (
    AuthenticationError,
    RateLimitedError,
    StorageError,
    TooLargeError,
    UnavailableError,
)
from mastra_storage_cloudflare.kv import RefusedCursorError

T = TypeVar("T")

KEY_NOT_FOUND, NO_NAMESPACE, NAMESPACE_EXISTS = 10009, 10013, 10014

_AUTHENTICATION = {9106, 9109, 10000, 10026}
_RATE_LIMITED = {971, 10022, 10046}
_DAILY_LIMIT = 10048
_TOO_LARGE = {10024, 10030, 10047}
_UNAVAILABLE = {10001}
_BAD_CURSOR = 10041

# What is nested without end is not decoded either.
_NOT_DECODED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# Characters of what the API says that an error repeats.
_MOST_SAID = 500


class Problem(Struct):
    """An error in an answer."""

    code: int | None = None
    message: str | None = None

    def __str__(self) -> str:
        return f"{self.code or 0} {self.message or ''}"


class Answer(Struct, Generic[T]):
    """The envelope around every answer but a value."""

    result: T
    success: bool = True
    errors: list[Problem] | None = None
    result_info: dict[str, Any] | None = None


class _Failure(Struct):
    errors: list[Problem] | None = None


class MissingKeyError(StorageError):
    """There is no such key."""


class MissingNamespaceError(StorageError):
    """There is no such namespace (any more)."""


class NamespaceExistsError(StorageError):
    """There is a namespace of that title already."""


def decoded(content: bytes, result: Any) -> Any:
    """The `Answer` of `result` in an answer with status 200."""
    try:
        answer = msgspec.json.decode(content, type=Answer[result])
    except _NOT_DECODED as exc:
        if _problems(content):
            raise failure_of(200, content, None) from None
        raise UnavailableError(
            f"what answered in Cloudflare's place is not its API ({type(exc).__name__}); check "
            "base_url and proxies"
        ) from exc
    if not answer.success:
        raise failure_of(200, content, None)
    return answer


def _problems(body: bytes) -> list[Problem]:
    try:
        return msgspec.json.decode(body, type=_Failure).errors or []
    except _NOT_DECODED:
        return []


def failure_of(status: int, body: bytes, retry_after: str | None) -> StorageError:
    """The error that an answer with this status, or without success, stands for."""
    problems = _problems(body)
    codes = {problem.code or 0 for problem in problems}
    said = "; ".join(map(str, problems)) or f"HTTP {status}"
    if len(said) > _MOST_SAID:
        said = f"{said[:_MOST_SAID]}…"
    if KEY_NOT_FOUND in codes:
        return MissingKeyError(f"Cloudflare refused the request ({said})")
    if NO_NAMESPACE in codes:
        return MissingNamespaceError(f"Cloudflare refused the request ({said})")
    if NAMESPACE_EXISTS in codes:
        return NamespaceExistsError(f"Cloudflare refused the request ({said})")
    if _BAD_CURSOR in codes:
        return RefusedCursorError(f"Cloudflare refused the request ({said})")
    return _storage_error(status, codes, said, retry_after)


def _storage_error(
    status: int, codes: set[int], said: str, retry_after: str | None
) -> StorageError:
    if _DAILY_LIMIT in codes:
        return RateLimitedError(
            f"the plan's daily limit is used up ({said}); upgrade the plan, or go on tomorrow",
            retryable=False,
        )
    if status == 429 or codes & _RATE_LIMITED:
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
        return RateLimitedError(
            f"Cloudflare asks to slow down ({said}); try again"
            + (f" in {seconds:g} seconds" if seconds else " later"),
            retry_after=seconds,
        )
    if status in (401, 403) or codes & _AUTHENTICATION:
        return AuthenticationError(
            f"Cloudflare refused the token ({said}); it must be valid for this account and have "
            "the right 'Workers KV Storage: Edit'"
        )
    if status == 413 or codes & _TOO_LARGE:
        return TooLargeError(f"KV cannot hold a key, value or metadata of this size ({said})")
    if status >= 500 or codes & _UNAVAILABLE:
        return UnavailableError(f"Cloudflare could not answer ({said}); try again later")
    if status == 404:
        return AuthenticationError(
            f"there is no such account for this token ({said}); check account_id and base_url"
        )
    return StorageError(f"Cloudflare refused the request ({said})")
