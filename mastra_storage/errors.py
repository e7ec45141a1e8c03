"""Every error this library raises on purpose.

    StorageError                      .backend  .operation  .retryable
    ├── InvalidArgumentError          an argument cannot be what was given
    │   └── InvalidRecordError        a record cannot be stored as it is        .field
    ├── NotFoundError                 the thread (or target) is not there
    ├── ConflictError                 somebody else wrote first, or the id is taken
    ├── AuthenticationError           the key or token was refused
    ├── RateLimitedError              the service asks to slow down             .retry_after
    ├── UnavailableError              the store cannot be reached or used now
    ├── TooLargeError                 a record is larger than the backend holds
    ├── PartialWriteError             some rows were stored, some were not      .failed
    ├── UnsupportedError              this backend cannot do that
    └── PluginError                   a backend cannot be used
        ├── PluginNotFoundError       no backend is installed for a scheme
        └── PluginLoadError           an installed backend does not import

Messages say what was tried, on which backend, what went wrong and what to do next. They
never hold a key, a token or the content of a message; ids do appear in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AuthenticationError",
    "ConflictError",
    "InvalidArgumentError",
    "InvalidRecordError",
    "NotFoundError",
    "PartialWriteError",
    "PluginError",
    "PluginLoadError",
    "PluginNotFoundError",
    "RateLimitedError",
    "StorageError",
    "TooLargeError",
    "UnavailableError",
    "UnsupportedError",
]


class StorageError(Exception):
    """The base of all errors here.

    `backend` and `operation` name where it happened; the engine fills in what the raiser left
    out. `retryable` tells whether the same call may succeed later without any change.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        operation: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.backend = backend
        self.operation = operation
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        where = [part for part in (self.backend, self.operation) if part]
        return ": ".join([*where, self.message])

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message,), self.__dict__)


class InvalidArgumentError(StorageError):
    """An argument is not of the form the call takes; nothing was read or written."""


class InvalidRecordError(InvalidArgumentError):
    """A record cannot be stored as it is; nothing of the call was written.

    `field` names the offending member, with a path into nested values: `content.parts[2]`.
    """

    def __init__(self, message: str, *, field: str | None = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.field = field


class NotFoundError(StorageError):
    """The thread, or the target of a move, is not in the store."""


class ConflictError(StorageError):
    """The row was changed by somebody else in the meantime, or the id is already taken."""


class AuthenticationError(StorageError):
    """The store refused the key or token, or it lacks a right."""


class RateLimitedError(StorageError):
    """The service asks to slow down. `retry_after` is in seconds, when the service said."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.retry_after = retry_after


class UnavailableError(StorageError):
    """The store cannot be reached or used now: network, locks, disk, a closed storage."""

    retryable = True


class TooLargeError(StorageError):
    """A record is larger than this backend can hold; nothing was written."""


class PartialWriteError(StorageError):
    """Some rows of a write were stored and some were not.

    `failed` lists those that were not, as `(table name, key)` pairs.
    """

    retryable = True

    def __init__(
        self, message: str, *, failed: Sequence[tuple[str, tuple[str, ...]]] = (), **where: Any
    ) -> None:
        super().__init__(message, **where)
        self.failed = list(failed)


class UnsupportedError(StorageError):
    """The backend, or the version of it that is there, cannot do what was asked."""


class PluginError(StorageError):
    """A backend cannot be used."""


class PluginNotFoundError(PluginError):
    """No installed distribution offers a backend for the URL's scheme."""


class PluginLoadError(PluginError):
    """A backend is installed, but importing it failed."""
