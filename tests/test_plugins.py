"""How backends and tables are found, and what is said when one is not."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from msgspec import structs

import mastra_storage
from mastra_storage import (
    Backend,
    Capabilities,
    InvalidArgumentError,
    Key,
    Message,
    Op,
    PluginLoadError,
    PluginNotFoundError,
    Put,
    Query,
    Result,
    Row,
    Storage,
    Table,
    Thread,
    Touch,
    UnavailableError,
    UnsupportedError,
    open_storage,
    plugins,
    register,
    select,
    url_options,
)
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.cli.transfer import copy_rows

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution as pip would leave it: modules and their metadata on sys.path."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(distribution: str, entry_points: str, **modules: str) -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(entry_points)
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(source)

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def scheme(monkeypatch: pytest.MonkeyPatch) -> str:
    """A scheme to register, forgotten after the test."""
    monkeypatch.setattr(plugins, "_registered", {})
    return "mine"


GOOD = "from mastra_storage.backends.memory import MemoryBackend\nclass Good(MemoryBackend): ...\n"


def test_an_unknown_scheme_names_the_installed_ones() -> None:
    with pytest.raises(PluginNotFoundError, match=r"'redis'.*\(installed: .*memory.*sqlite"):
        open_storage("redis://localhost")


@pytest.mark.parametrize(
    ("scheme", "distribution"),
    [
        ("cloudflare", "mastra-storage-cloudflare"),
        ("convex", "mastra-storage-convex"),
        ("convex+http", "mastra-storage-convex"),
    ],
)
def test_a_known_scheme_that_is_not_installed_names_the_install_line(
    scheme: str, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = [e for e in plugins._entries(plugins.BACKENDS_GROUP) if e.name != scheme]
    monkeypatch.setattr(plugins, "_entries", lambda group: installed)
    with pytest.raises(PluginNotFoundError) as caught:
        open_storage(f"{scheme}://somewhere")
    assert f"pip install {distribution}" in str(caught.value).splitlines()[0]


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://host", r"a storage URL names a backend: .*convex://HOST"),
        ("http://127.0.0.1:3210", r"a storage URL names a backend: sqlite:///FILE"),
        ("sqlit:///agent.db", r"did you mean 'sqlite'\?"),
        ("convex+https://host", r"did you mean 'convex\+http'\?"),
        ("cloudfare://account", r"did you mean 'cloudflare'\?"),
        ("redis://host", r"installed \(installed: "),
    ],
)
def test_an_unknown_scheme_gets_a_hint_at_what_was_meant(url: str, hint: str) -> None:
    with pytest.raises(PluginNotFoundError, match=hint):
        open_storage(url)


@pytest.mark.parametrize("url", ["agent.db", "", ":memory:", "sqlite:agent.db"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"what was given has no '://'"):
        open_storage(url)


@pytest.mark.parametrize("url", [None, 7, Path("agent.db")])
def test_what_is_no_text_is_refused_as_such(url: object) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"sqlite:///.* of type {type(url).__name__}"):
        open_storage(url)  # type: ignore[arg-type]


def test_a_broken_plugin_is_named_and_harms_no_other(install: Install) -> None:
    install(
        "acme-store",
        "[mastra_storage.backends]\nacme = acme_store:Acme\n",
        acme_store="import a_module_nobody_has\n",
    )
    with pytest.raises(PluginLoadError) as caught:
        open_storage("acme://x")
    message = str(caught.value)
    assert "acme-store 1.2" in message
    assert "acme_store:Acme" in message
    assert "a_module_nobody_has" in message
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert isinstance(open_storage("memory://"), Storage)
    assert plugins.schemes()["acme"] == "acme-store 1.2"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
        ("def broken(:\n", "SyntaxError"),
        ("Other = 1\n", "AttributeError"),
    ],
)
def test_the_cause_is_told_whatever_it_is(install: Install, source: str, cause: str) -> None:
    install("acme", "[mastra_storage.backends]\nacme = acme_b:Acme\n", acme_b=source)
    with pytest.raises(PluginLoadError, match=cause):
        open_storage("acme://x")


async def test_an_installed_backend_is_found_and_imported_late(install: Install) -> None:
    install("good", "[mastra_storage.backends]\ngood = good_b:Good\n", good_b=GOOD)
    open_storage("memory://")
    assert plugins.schemes()["good"] == "good 1.2"
    assert "good_b" not in sys.modules
    async with open_storage("GOOD://x") as storage:
        assert "good_b" in sys.modules
        assert type(storage.backend).__name__ == "Good"
        await storage.save_thread(Thread(id="t1", resource_id="r1"))


def test_a_registered_backend_comes_before_an_installed_one(install: Install, scheme: str) -> None:
    install("good", f"[mastra_storage.backends]\n{scheme} = good_b:Good\n", good_b=GOOD)

    class Own(MemoryBackend):
        pass

    register(scheme.upper(), Own)
    assert type(open_storage(f"{scheme}://").backend) is Own
    assert plugins.schemes()[scheme] == "registered in this process"
    assert "good_b" not in sys.modules


@pytest.mark.parametrize("bad", ["", "no/slash", "1st", "a b", "é", None])
def test_a_name_that_cannot_be_a_scheme_is_refused(bad: object, scheme: str) -> None:
    with pytest.raises(InvalidArgumentError, match="scheme"):
        register(bad, MemoryBackend)  # type: ignore[arg-type]


async def test_open_storage_raises_at_the_call_and_does_no_io(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'agent.db'}")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UnavailableError, match="async with"):
        await storage.get_thread_by_id("t1")


def test_an_unknown_option_is_refused_at_the_call() -> None:
    with pytest.raises(InvalidArgumentError, match=r"memory://.*'colour'"):
        open_storage("memory://", colour="red")
    with pytest.raises(InvalidArgumentError, match=r"memory://.*'colour'"):
        open_storage("memory://?colour=red")


def test_url_options_merges_and_checks() -> None:
    allowed = ("timeout", "prefix")
    assert url_options("x://h?timeout=3&prefix=", {}, allowed=allowed) == {
        "timeout": "3",
        "prefix": "",
    }
    assert url_options("x://h?timeout=3", {"timeout": 5}, allowed=allowed) == {"timeout": 5}
    assert url_options("x://h?prefix=a%2Fb", {}, allowed=allowed) == {"prefix": "a/b"}
    with pytest.raises(InvalidArgumentError, match="twice"):
        url_options("x://h?timeout=3&timeout=4", {}, allowed=allowed)
    with pytest.raises(InvalidArgumentError, match="the options are: prefix, timeout"):
        url_options("x://h", {"retries": 1}, allowed=allowed)


@pytest.mark.parametrize("host", ["[", "[bad", "bad]", "a\u2100b", "user:word@[::1"])
@pytest.mark.parametrize("scheme", ["memory", "sqlite", "cloudflare", "convex", "convex+http"])
def test_a_host_that_cannot_be_is_refused(scheme: str, host: str) -> None:
    if scheme not in plugins.schemes():
        pytest.skip(f"there is no {scheme}:// here")
    with pytest.raises(InvalidArgumentError, match="looks like sqlite://"):
        open_storage(f"{scheme}://{host}")


SECRET = "tok-5f1c9"  # never to be seen again


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@host/0",
        f"cloudflare://account?api_token={SECRET}",
        f"memory://user:{SECRET}@host?colour={SECRET}",
        f"memory://?a={SECRET}&a={SECRET}",
        f"{SECRET}",
        f"https:{SECRET}",
        f"memory://user:{SECRET}@[host",
        f"memory://user:{SECRET}@\u2100",
        f"memory://[{SECRET}]?colour=red",
    ],
)
def test_no_message_repeats_a_secret_of_the_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [e for e in plugins._entries(plugins.BACKENDS_GROUP) if e.name in ("memory", "sqlite")]
    monkeypatch.setattr(plugins, "_entries", lambda group: own)
    with pytest.raises(mastra_storage.StorageError) as caught:
        open_storage(url, api_token=SECRET)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        assert SECRET not in repr(error)
        error = error.__cause__


def test_tables_of_adapters_are_found(install: Install) -> None:
    install(
        "adapter",
        "[mastra_storage.tables]\nnotes = adapter_t:NOTES\n",
        adapter_t=(
            "from mastra_storage import Table\n"
            "NOTES = Table(name='adapter_notes', key=('id',), fields=('kind',))\n"
        ),
    )
    tables = plugins.load_tables()
    assert tables["adapter_notes"] == Table(name="adapter_notes", key=("id",), fields=("kind",))
    assert set(mastra_storage.TABLES) < set(tables)


OWN = "from mastra_storage import Table\nT = Table(name={name!r}, key={key!r})\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("T = 3\n", r"'bad' of bad-adapter 1\.2 is not a Table but int"),
        ("import a_module_nobody_has\n", r"bad-adapter 1\.2.*a_module_nobody_has"),
        (OWN.format(name="threads", key=("a",)), r"bad-adapter 1\.2 takes the name 'threads'"),
        (OWN.format(name="notes", key=("a",)), r"adapter 1\.2 takes the name 'notes'"),
    ],
)
def test_a_broken_adapter_is_named_and_harms_no_other(
    install: Install, source: str, message: str
) -> None:
    good = OWN.format(name="notes", key=("id",))
    install("adapter", "[mastra_storage.tables]\nnotes = good_t:T\n", good_t=good)
    install("bad-adapter", "[mastra_storage.tables]\nbad = bad_t:T\n", bad_t=source)
    tables = plugins.load_tables()
    assert ("notes" in tables) == ("'notes'" not in message)  # a disputed name is nobody's
    assert tables["threads"] is mastra_storage.THREADS
    [error] = plugins.broken_tables()
    assert re.search(message, str(error))


async def test_a_copy_names_the_broken_adapter_rather_than_leave_its_rows_out(
    install: Install,
) -> None:
    install(
        "adapter", "[mastra_storage.tables]\nnotes = good_t:T\n", good_t="import nothing_at_all\n"
    )
    async with open_storage("memory://") as source, open_storage("memory://") as target:
        source.register(Table(name="notes", key=("id",)))
        await source.insert("notes", {"id": "1"})
        with pytest.raises(PluginNotFoundError, match=r"notes; .*adapter 1\.2.*nothing_at_all"):
            await copy_rows(source, target)


def test_without_adapters_no_table_is_broken() -> None:
    assert plugins.broken_tables() == []


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("Acme = print\n", "without from_url, open, close, get, query, write"),
        ("class Acme:\n    def from_url(self): ...\n", "without open, close, get"),
        ("Acme = None\n", "NoneType without from_url"),
    ],
)
def test_what_is_no_backend_is_refused(
    install: Install, scheme: str, source: str, missing: str
) -> None:
    install("acme", "[mastra_storage.backends]\nacme = acme_n:Acme\n", acme_n=source)
    with pytest.raises(PluginLoadError, match=r"\(acme_n:Acme\) is no backend: ") as caught:
        open_storage("acme://x")
    assert "acme 1.2" in str(caught.value)
    assert missing in str(caught.value)
    with pytest.raises(InvalidArgumentError, match=f"registered for {scheme}:// is no backend"):
        register(scheme, dict)  # type: ignore[arg-type]


class Plain:
    """What the contract names, and no more."""

    capabilities = Capabilities()

    def __init__(self) -> None:
        self.rows: dict[tuple[str, Key], Row] = {}

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Plain:
        return cls()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        return [self.rows.get((table.name, key)) for key in keys]

    async def query(self, query: Query) -> Result:
        return select([r for (name, _), r in self.rows.items() if name == query.table.name], query)

    async def write(self, ops: Sequence[Op]) -> None:
        for op in ops:
            if isinstance(op, Put):
                self.rows[op.row.table.name, op.row.key] = op.row
            elif isinstance(op, Touch):
                row = self.rows[op.table.name, op.key]
                self.rows[op.table.name, op.key] = structs.replace(row, touched=op.at)


async def test_a_backend_of_what_the_contract_names_is_enough(scheme: str) -> None:
    register(scheme, Plain)  # type: ignore[arg-type]
    async with open_storage(f"{scheme}://x") as storage, open_storage("memory://") as other:
        assert repr(storage) == "<Storage on Plain>"
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_message(Message(thread_id="t", role="user", content="Hello"))
        assert [m.content for m in await storage.get_messages("t", last=1)] == ["Hello"]
        with pytest.raises(InvalidArgumentError, match="last") as refused:
            await storage.get_messages("t", last=-1)
        assert refused.value.backend == "Plain"
        with pytest.raises(UnsupportedError, match="no `tables`") as caught:
            await copy_rows(storage, other)
        assert (caught.value.backend, caught.value.operation) == ("Plain", "copy")


def test_a_backend_declares_its_capabilities(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Plain, "capabilities")
    register(scheme, Plain)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="Plain is no backend: it declares no `cap"):
        open_storage(f"{scheme}://x")


@pytest.mark.parametrize("verb", ["get", "query", "write", "watch"])
def test_a_backend_has_verbs_of_its_own(verb: str) -> None:
    """Those of the protocol do nothing, and `write` would say that it stored what it was given."""

    class Half(MemoryBackend):
        pass

    setattr(Half, verb, getattr(Backend, verb))
    with pytest.raises(InvalidArgumentError, match=f"it has no `{verb}`"):
        Storage(Half())


def test_a_class_that_inherits_its_verbs_is_not_registered(scheme: str) -> None:
    class Empty(Backend):
        @classmethod
        def from_url(cls, url: str, **options: object) -> Empty:
            raise AssertionError(url)

    with pytest.raises(InvalidArgumentError, match=r"no backend: \w+ without get, query, write$"):
        register(scheme, Empty)  # type: ignore[type-abstract]


def test_what_is_built_in_is_opened_without_a_look_at_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(group: str) -> NoReturn:
        raise AssertionError(f"looked for {group}")

    monkeypatch.setattr(plugins, "_entries", refuse)
    for url in ("memory://", "sqlite:///agent.db", "SQLITE:///agent.db"):
        assert isinstance(open_storage(url), Storage)


def test_a_python_without_sqlite_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mastra_storage.backends.sqlite", None)
    with pytest.raises(PluginLoadError, match="sqlite:// cannot be imported") as caught:
        open_storage("sqlite:///agent.db")
    assert isinstance(caught.value.__cause__, ImportError)


def test_the_built_in_backends_are_those_of_the_distribution() -> None:
    installed = {entry.name: entry for entry in plugins._entries(plugins.BACKENDS_GROUP)}
    for scheme in ("memory", "sqlite"):
        assert installed[scheme].load() is plugins.load_backend(scheme)
