"""How backends are found: URL schemes, entry points, `open_storage()`.

A distribution offers a backend in the entry-point group `mastra_storage.backends`: the name
is the URL scheme, the value the `Backend` class. Nothing is imported before its scheme is
asked for, and a broken plugin harms no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from mastra_storage.backend import Backend
from mastra_storage.errors import InvalidArgumentError, PluginLoadError, PluginNotFoundError
from mastra_storage.schema import TABLES, Table

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from mastra_storage.storage import Storage

__all__ = ["load_backend", "load_tables", "open_storage", "register", "schemes", "url_options"]

BACKENDS_GROUP = "mastra_storage.backends"
TABLES_GROUP = "mastra_storage.tables"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")

# Where to get a backend that is not installed.
_DISTRIBUTIONS = {
    "cloudflare": "mastra-storage-cloudflare",
    "convex": "mastra-storage-convex",
    "convex+http": "mastra-storage-convex",
}

_registered: dict[str, type[Backend]] = {}


def register(scheme: str, backend: type[Backend]) -> None:
    """Make `backend` answer to `scheme://` URLs in this process, before any installed one.

    register("redis", RedisBackend)
    """
    if not isinstance(scheme, str) or not _SCHEME.fullmatch(scheme):
        raise InvalidArgumentError(
            f"{scheme!r} cannot be a URL scheme: letters, digits, '+', '-', '.'"
        )
    _registered[scheme.lower()] = backend


def open_storage(url: str, **options: Any) -> Storage:
    """A `Storage` for a URL, to be used in `async with`; no I/O before that.

        async with open_storage("sqlite:///agent.db") as storage: ...

    Options of the backend are keyword arguments or URL query parameters; a keyword wins.
    Raises `InvalidArgumentError` for a URL or option that cannot be, `PluginNotFoundError`
    for a scheme nobody offers, `PluginLoadError` for a backend that does not import.
    """
    from mastra_storage.storage import Storage

    if not isinstance(url, str) or "://" not in url:
        raise InvalidArgumentError(
            "a storage URL looks like sqlite:///agent.db or memory://; what was given has no '://'"
        )
    scheme = url.split("://", 1)[0].lower()
    return Storage(load_backend(scheme).from_url(url, **options))


def load_backend(scheme: str) -> type[Backend]:
    """The `Backend` class for a scheme; imports it when it is asked for the first time."""
    if scheme in _registered:
        return _registered[scheme]
    for entry in _entries(BACKENDS_GROUP):
        if entry.name == scheme:
            return cast(type[Backend], _load(entry, f"the backend for {scheme}://"))
    known = ", ".join(sorted(schemes())) or "none"
    hint = ""
    if scheme in _DISTRIBUTIONS:
        hint = f"; install it with: pip install {_DISTRIBUTIONS[scheme]}"
    raise PluginNotFoundError(
        f"no backend for {scheme!r} URLs is installed{hint} (installed: {known})"
    )


def schemes() -> dict[str, str]:
    """The URL schemes that can be opened here, each with the distribution that offers it."""
    found = {entry.name: _distribution(entry) for entry in _entries(BACKENDS_GROUP)}
    return found | dict.fromkeys(_registered, "registered in this process")


def load_tables() -> dict[str, Table]:
    """All tables known in any process: the six of the contract and those that adapters name
    in the entry-point group `mastra_storage.tables`.
    """
    tables = dict(TABLES)
    for entry in _entries(TABLES_GROUP):
        table = _load(entry, f"the table {entry.name!r}")
        if not isinstance(table, Table):
            raise PluginLoadError(
                f"the table {entry.name!r} of {_distribution(entry)} is not a Table but "
                f"{type(table).__name__}"
            )
        tables[table.name] = table
    return tables


def url_options(url: str, options: Mapping[str, Any], *, allowed: Iterable[str]) -> dict[str, Any]:
    """The options in a URL's query, overridden by keyword `options`; for `Backend.from_url`.

    Raises `InvalidArgumentError` for one that is not `allowed` or is given twice.
    """
    # Imported late, like importlib.metadata below: it costs a fourth of this package's import.
    from urllib.parse import parse_qsl, urlsplit

    given = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    found: dict[str, Any] = dict(given)
    if len(found) < len(given):
        raise InvalidArgumentError("an option is given twice in the URL")
    found.update(options)
    for name in found:
        if name not in (names := sorted(allowed)):
            what = f"the options are: {', '.join(names)}" if names else "it takes none"
            raise InvalidArgumentError(
                f"{urlsplit(url).scheme}:// has no option {name!r}; {what}",
                backend=urlsplit(url).scheme,
            )
    return found


def _entries(group: str) -> list[EntryPoint]:
    # Imported late: it costs more than all of this package.
    from importlib.metadata import entry_points

    return list(entry_points(group=group))


def _load(entry: EntryPoint, what: str) -> Any:
    try:
        return entry.load()
    except Exception as exc:  # a plugin's import can raise anything
        raise PluginLoadError(
            f"{what} is installed by {_distribution(entry)}, but importing {entry.value} failed: "
            f"{type(exc).__name__}: {exc}; reinstall or upgrade that distribution"
        ) from exc


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
