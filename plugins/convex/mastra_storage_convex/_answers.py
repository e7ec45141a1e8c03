"""What Convex answers: the envelope, and the error that each failure stands for.

Convex's own texts may quote arguments and documents, so that no error repeats them: only codes
and request ids get into a message.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mastra_storage import (
    AuthenticationError,
    RateLimitedError,
    StorageError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
)

T = TypeVar("T")

VERIFY = "; `mastra-storage-convex verify` says what is missing"

DEPLOY = (
    "copy the functions of this version with `mastra-storage-convex init`, then deploy them: "
    "`npx convex dev --once` (to your development deployment) or `npx convex deploy` (to that of "
    f"the deploy key, or production){VERIFY}"
)
"""The next step when what is deployed is not what this version needs."""

_VERSION = "system:version"

FUNCTION_FAILED = 560
"""The status with which some deployments answer for a function that failed; most say 200."""

_OVERLOADED = {
    "CommitterFullError",
    "ExpiredInQueue",
    "OptimisticConcurrencyControlFailure",
    "TooManyConcurrentRequests",
    "TooManyWrites",
    "WorkerOverloaded",
}
_MISSING = re.compile(r"Could not find (public |internal )?(function|module)|Couldn't find")
_OTHER_FUNCTIONS = re.compile(
    r"ArgumentValidationError|ReturnsValidationError|does not match the schema|"
    r"Trying to execute|is not defined as"
)
_TRANSACTION = re.compile(
    r"in a single function execution|timed out|too long to (run|execute)|"
    r"(Arguments for|return value).* (is|are) too large|"
    r"TooMany(Reads|BytesRead|DocumentsRead|BytesWritten|DocumentsWritten)|"
    r"Function\w*TooLarge|SystemTimeoutError|UserTimeout"
)
_DOCUMENT = re.compile(r"is too large|nested too deep|too deeply nested|too long \(|has too many")
_REQUEST_ID = re.compile(r"\[Request ID: ([0-9A-Za-z]+)\]")


class _Envelope(Struct, Generic[T], rename="camel"):
    """The envelope around what a function gives, or why it gave nothing."""

    status: str
    value: T | UnsetType = UNSET
    error_message: str = ""


class _Failure(Struct):
    """The body of an answer that is not from a function."""

    code: str = ""


class TransactionTooLargeError(TooLargeError):
    """A call needs more than one transaction of Convex may read, write or take."""


class FunctionFailedError(StorageError):
    """A function failed, and Convex does not tell why, as in production."""


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading an answer as JSON may raise."""


def decoded(content: bytes, kind: Any, path: str) -> Any:
    """The value, of type `kind`, in an answer of function `path` with status 200."""
    try:
        envelope = _decoder(kind)(content)
    except UNREADABLE as exc:
        raise _undecoded(content, path, exc) from exc
    if envelope.status == "error":
        raise function_failure(envelope.error_message, path)
    if envelope.status != "success" or envelope.value is UNSET:
        raise UnavailableError(_NOT_CONVEX.format("no value"))
    return envelope.value


@lru_cache(maxsize=1024)
def _decoder(kind: Any) -> Any:
    return msgspec.json.Decoder(_Envelope[kind]).decode


def _undecoded(content: bytes, path: str, exc: Exception) -> StorageError:
    """The error for an answer that is not of the type expected."""
    try:
        status = msgspec.json.decode(content, type=_Envelope[Raw]).status
    except UNREADABLE:
        status = ""
    if status == "success":
        return UnsupportedError(f"{path} gives something else than this version reads; {DEPLOY}")
    return UnavailableError(_NOT_CONVEX.format(type(exc).__name__))


_NOT_CONVEX = "what answered in Convex's place is not its API ({}); check the URL and proxies"


def function_failure(message: str, path: str) -> StorageError:
    """The error for a function that failed, from what Convex says of it."""
    found = _REQUEST_ID.search(message)
    request = f", request {found[1]}" if found else ""
    if _MISSING.search(message):
        return UnsupportedError(f"the deployment has no function {path}; {DEPLOY}")
    if _OTHER_FUNCTIONS.search(message):
        return UnsupportedError(
            f"the functions or the schema of the deployment are of another version ({path} "
            f"refused its arguments or results{request}); {DEPLOY}"
        )
    if _TRANSACTION.search(message):
        return TransactionTooLargeError(
            f"{path} was more than one transaction of Convex may be{request}; "
            "write or ask for less at a time"
        )
    if _DOCUMENT.search(message):
        return TooLargeError(
            "a record, or what was asked for, is larger or nested deeper than Convex takes in "
            f"one{request}; keep large content elsewhere and refer to it, or ask for less at a time"
        )
    if "Documents read from or written to" in message or "OptimisticConcurrency" in message:
        return _overloaded("OptimisticConcurrencyControlFailure")
    if path == _VERSION:  # it cannot fail where it is, but production deployments say no more
        return UnsupportedError(
            f"the deployment has no functions, or those of another version ({path} failed"
            f"{request}); {DEPLOY}"
        )
    return FunctionFailedError(
        f"the function {path} failed{request}; the reason is in the deployment's logs: see its "
        "dashboard, or run `npx convex logs`; if it is that a function could not be found or "
        f"takes other arguments, {DEPLOY}"
    )


def failure_of(status: int, body: bytes, retry_after: str | None) -> StorageError:
    """The error that an answer with this status, not 200, stands for."""
    try:
        code = msgspec.json.decode(body, type=_Failure).code
    except UNREADABLE:
        code = ""
    code = code if re.fullmatch(r"\w{1,64}", code) else ""
    said = f"HTTP {status} {code}".rstrip()
    if status in (401, 403):
        return AuthenticationError(
            f"Convex refused the key ({said}); it must be a deploy key of this very deployment, "
            "from its settings in the dashboard, or the admin key of a self-hosted one"
        )
    if status == 429:
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
        return RateLimitedError(
            f"Convex asks to slow down ({said}); try again"
            + (f" in {seconds:g} seconds" if seconds else " later"),
            retry_after=seconds,
        )
    if code in _OVERLOADED:
        return _overloaded(said)
    if status >= 500:
        return UnavailableError(f"Convex could not answer ({said}); try again later")
    if status == 413 or _TRANSACTION.search(code):
        return TransactionTooLargeError(
            f"a call was more than one transaction of Convex may be ({said}); "
            "write or ask for less at a time"
        )
    if status == 404 or 300 <= status < 400:
        return UnavailableError(
            f"there is no Convex deployment at this URL ({said}); it looks like "
            "https://cheerful-lemur-123.convex.cloud, see the deployment's settings",
            retryable=False,
        )
    return StorageError(f"Convex refused the request ({said}); check the URL and the key")


def _overloaded(said: str) -> UnavailableError:
    return UnavailableError(f"Convex is too busy at the moment ({said}); try again later")
