"""How backends are found: URL schemes, entry points, `open_storage()`.

A distribution offers a backend in the entry-point group `mastra_storage.backends`: the name
is the URL scheme, the value the `Backend` class. Nothing is imported before its scheme is
asked for, and a broken plugin harms no other. `memory` and `sqlite` are of this package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from mastra_storage.arguments import missing_verbs
from mastra_storage.backend import Backend
from mastra_storage.errors import InvalidArgumentError, PluginLoadError, PluginNotFoundError
from mastra_storage.schema import TABLES, Table

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from mastra_storage.storage import Storage

__all__ = [
    "broken_tables",
    "load_backend",
    "load_tables",
    "open_storage",
    "register",
    "schemes",
    "url_options",
]

BACKENDS_GROUP = "mastra_storage.backends"
TABLES_GROUP = "mastra_storage.tables"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")

# Where to get a backend that is not installed.
_DISTRIBUTIONS = {
    "cloudflare": "mastra-storage-cloudflare",
    "convex": "mastra-storage-convex",
    "convex+http": "mastra-storage-convex",
}

_EXAMPLES = "sqlite:///FILE, cloudflare://ACCOUNT, convex://HOST"

_registered: dict[str, type[Backend]] = {}


def register(scheme: str, backend: type[Backend]) -> None:
    """Make `backend` answer to `scheme://` URLs in this process, before any installed one.

    register("redis", RedisBackend)
    """
    if not isinstance(scheme, str) or not _SCHEME.fullmatch(scheme):
        raise InvalidArgumentError(
            f"{scheme!r} cannot be a URL scheme: letters, digits, '+', '-', '.'"
        )
    if missing := _missing(backend):
        raise InvalidArgumentError(f"what is registered for {scheme}:// is no backend: {missing}")
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
        given = "has no '://'" if isinstance(url, str) else f"is of type {type(url).__name__}"
        raise InvalidArgumentError(
            f"a storage URL looks like sqlite:///agent.db or memory://; what was given {given}"
        )
    scheme = url.split("://", 1)[0].lower()
    return Storage(load_backend(scheme).from_url(url, **options))


def load_backend(scheme: str) -> type[Backend]:
    """The `Backend` class for a scheme; imports it when it is asked for the first time."""
    backend = _registered.get(scheme) or _built_in(scheme)
    if backend is not None:
        return backend
    for entry in _entries(BACKENDS_GROUP):
        if entry.name == scheme:
            found = _load(entry, f"the backend for {scheme}://")
            if missing := _missing(found):
                raise PluginLoadError(
                    f"the backend for {scheme}:// of {_distribution(entry)} ({entry.value}) is no "
                    f"backend: {missing}"
                )
            return cast(type[Backend], found)
    known = ", ".join(sorted(schemes())) or "none"
    raise PluginNotFoundError(
        f"no backend for {scheme!r} URLs is installed{_hint(scheme)} (installed: {known})"
    )


def _hint(scheme: str) -> str:
    """What may have been meant by a scheme that nobody offers."""
    if scheme in _DISTRIBUTIONS:
        name = _DISTRIBUTIONS[scheme]
        place = name.removeprefix("mastra-storage-")
        return (
            f"; install it with: pip install {name}, in a checkout: pip install ./plugins/{place}"
        )
    if scheme in ("http", "https"):
        return f"; a storage URL names a backend: {_EXAMPLES}"
    # Imported late: nobody else needs it.
    from difflib import get_close_matches

    meant = get_close_matches(scheme, {**_DISTRIBUTIONS, **schemes()}, n=1)
    return f"; did you mean {meant[0]!r}?" if meant else ""


def schemes() -> dict[str, str]:
    """The URL schemes that can be opened here, each with the distribution that offers it."""
    found = {entry.name: _distribution(entry) for entry in _entries(BACKENDS_GROUP)}
    return found | dict.fromkeys(_registered, "registered in this process")


def load_tables() -> dict[str, Table]:
    """All tables known in any process: the six of the contract and those that adapters name
    in the entry-point group `mastra_storage.tables`.

    One that cannot be used is left out, and harms no other; `broken_tables()` tells why.
    """
    return _load_tables()[0]


def broken_tables() -> list[PluginLoadError]:
    """What is wrong with tables of installed adapters that `load_tables()` leaves out."""
    return _load_tables()[1]


def _load_tables() -> tuple[dict[str, Table], list[PluginLoadError]]:
    tables, broken, disputed = dict(TABLES), [], set()
    for entry in _entries(TABLES_GROUP):
        try:
            table = _load_table(entry)
        except PluginLoadError as exc:
            broken.append(exc)
            continue
        if tables.setdefault(table.name, table) != table:
            disputed.add(table.name)
            broken.append(
                PluginLoadError(
                    f"the table {entry.name!r} of {_distribution(entry)} takes the name "
                    f"{table.name!r}, which another table has already"
                )
            )
    for name in disputed - set(TABLES):
        del tables[name]  # whose rows those of the store are, nobody can tell
    parts = [table.parts for table in tables.values() if table.large]
    return tables | {table.name: table for table in parts}, broken


def _load_table(entry: EntryPoint) -> Table:
    table = _load(entry, f"the table {entry.name!r}")
    if not isinstance(table, Table):
        raise PluginLoadError(
            f"the table {entry.name!r} of {_distribution(entry)} is not a Table but "
            f"{type(table).__name__}"
        )
    return table


def url_options(url: str, options: Mapping[str, Any], *, allowed: Iterable[str]) -> dict[str, Any]:
    """The options in a URL's query, overridden by keyword `options`; for `Backend.from_url`.

    Raises `InvalidArgumentError` for one that is not `allowed` or is given twice, and for what
    `urllib.parse.urlsplit` takes for no URL.
    """
    # Imported late, like importlib.metadata below: it costs a fourth of this package's import.
    from urllib.parse import parse_qsl, urlsplit

    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidArgumentError(
            "the storage URL cannot be read: what stands between its '://' and the next '/', '?' "
            "or '#' is no host, which is a plain name, or an IPv6 address in [ ]; a URL looks "
            f"like {_EXAMPLES}"
        ) from None  # the cause repeats a part of the URL, in which a password may be
    given = parse_qsl(parts.query, keep_blank_values=True)
    found: dict[str, Any] = dict(given)
    if len(found) < len(given):
        raise InvalidArgumentError("an option is given twice in the URL")
    found.update(options)
    for name in found:
        if name not in (names := sorted(allowed)):
            what = f"the options are: {', '.join(names)}" if names else "it takes none"
            raise InvalidArgumentError(
                f"{parts.scheme}:// has no option {name!r}; {what}",
                backend=parts.scheme,
            )
    return found


def _built_in(scheme: str) -> type[Backend] | None:
    """A backend of this package, without a look at what is installed, which is I/O."""
    try:
        if scheme == "memory":
            from mastra_storage.backends.memory import MemoryBackend

            return MemoryBackend
        if scheme == "sqlite":
            from mastra_storage.backends.sqlite import SqliteBackend

            return SqliteBackend
    except ImportError as exc:  # such as a Python that is built without SQLite
        raise PluginLoadError(f"the backend for {scheme}:// cannot be imported: {exc}") from exc
    return None


def _missing(backend: Any) -> str:
    """What `backend` lacks to be one; empty when it lacks nothing."""
    lacking = [] if callable(getattr(backend, "from_url", None)) else ["from_url"]
    lacking += missing_verbs(backend)
    return f"{type(backend).__name__} without {', '.join(lacking)}" if lacking else ""


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
            f"{type(exc).__name__}: {exc}; reinstall or upgrade that distribution, or mend its "
            "entry point"
        ) from exc


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
