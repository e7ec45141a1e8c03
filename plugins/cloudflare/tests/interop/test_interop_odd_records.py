"""What the TypeScript store can write, and hardly ever does, is read; or is named."""

from __future__ import annotations

from typing import Any

import pytest

from interop.typescript import RawKV, binding_envelope, message, sdk_envelope, stringify, thread
from mastra_storage import Message, Storage, StorageError

THREADS, MESSAGES = "myapp__mastra_threads", "myapp__mastra_messages"
RUNS, EVALS = "myapp__mastra_workflow_snapshot", "myapp__mastra_evals"
THREAD, LIST = "myapp_:mastra_threads:t1", "myapp_:mastra_messages:t1:messages"
RUN = "myapp_:mastra_workflow_snapshot:w:r1"
MESSAGE = "myapp_:mastra_messages:t1:"
TIMES = {"createdAt": "2025-06-01T12:00:00.000Z", "updatedAt": "2025-06-01T12:00:00.000Z"}

CUT = r"Bon voyage \ud83d"  # as JSON.stringify writes a text that was cut within an emoji


def cut(value: Any) -> str:
    """A record in which "CUT" stands for a text that was cut."""
    return stringify(value).replace("CUT", CUT)


async def test_a_text_that_was_cut_within_a_character_is_read(store: Storage, raw: RawKV) -> None:
    await raw.put(THREADS, THREAD, cut(thread(title="CUT", metadata={"CUT": ["CUT"]})))
    await raw.put(MESSAGES, MESSAGE + "a", cut(message("a", content="CUT")))
    await raw.put(MESSAGES, MESSAGE + "b", message("b"))
    await raw.put(MESSAGES, LIST, [{"id": "a", "score": 0}, {"id": "b", "score": 1}])
    found = await store.get_thread_by_id("t1")
    assert found is not None
    assert found.title == "Bon voyage \ufffd"
    assert found.metadata == {found.title: [found.title]}
    first, second = await store.get_messages("t1")
    assert (first.content, second.id) == (found.title, "b")
    await store.save_message(Message(id="c", thread_id="t1", role="user", content="Merci"))
    await store.update_thread("t1", metadata={"seen": True})
    assert [m.id for m in await store.get_messages("t1")] == ["a", "b", "c"]
    assert (await raw.json(THREADS, THREAD))["title"] == found.title
    assert CUT in await raw.text(MESSAGES, MESSAGE + "a")  # which nobody saved again


@pytest.mark.parametrize(
    ("escaped", "meant"),
    [
        (r"\ud83d\ude00", "😀"),
        (r"\uD83D\uDE00!", "😀!"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\ud83dude00", "\ufffdude00"),
        (r"\\ud83d", r"\ud83d"),
        (r"\\\ud83d", "\\\ufffd"),
        (r"\ud83d\n", "\ufffd\n"),
    ],
)
@pytest.mark.parametrize("form", [str, sdk_envelope, binding_envelope])
async def test_nothing_else_of_a_text_changes(
    store: Storage, raw: RawKV, form: Any, escaped: str, meant: str
) -> None:
    await raw.put(THREADS, THREAD, form(stringify(thread(title="CUT")).replace("CUT", escaped)))
    found = await store.get_thread_by_id("t1")
    assert found is not None
    assert found.title == meant


async def test_a_snapshot_with_a_text_that_was_cut(store: Storage, raw: RawKV) -> None:
    snapshot = cut({"runId": "r1", "status": "success", "result": "CUT"})
    run = {"workflow_name": "w", "run_id": "r1", "snapshot": snapshot, **TIMES}
    await raw.put(RUNS, RUN, run)
    found = await store.load_workflow_snapshot("w", "r1")
    assert found == {"runId": "r1", "status": "success", "result": "Bon voyage \ufffd"}


async def test_a_score_that_was_no_number_is_read_as_zero(store: Storage, raw: RawKV) -> None:
    await raw.put(THREADS, THREAD, thread())
    for each in "ab":
        await raw.put(MESSAGES, MESSAGE + each, message(each))
    await raw.put(MESSAGES, LIST, [{"id": "b", "score": None}, {"id": "a", "score": 1}])
    assert [m.id for m in await store.get_messages("t1")] == ["b", "a"]
    await store.save_message(Message(id="c", thread_id="t1", role="user", content="new"))
    assert [m.id for m in await store.get_messages("t1")] == ["b", "a", "c"]
    listed = await raw.json(MESSAGES, LIST)
    assert [(each["id"], each["score"]) for each in listed[:2]] == [("b", 0), ("a", 1)]


async def test_an_eval_without_a_score_is_listed(store: Storage, raw: RawKV) -> None:
    row = {"id": "e1", "run_id": "r1", "agent_name": "a", "metric_name": "m", "score": None}
    await raw.put(EVALS, "myapp_:mastra_evals:e1", row | {"result": {"score": None}} | TIMES)
    [found] = await store.get_evals()
    assert found.result == {"score": None}
    assert (await store.get_evals(agent_name="a")).items == [found]


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("form", [str, sdk_envelope, binding_envelope])
async def test_what_is_nested_too_deep_is_named(store: Storage, raw: RawKV, form: Any) -> None:
    deep = stringify(message("a", content="DEEP")).replace('"DEEP"', nested(100_000))
    await raw.put(THREADS, THREAD, thread())
    await raw.put(MESSAGES, MESSAGE + "a", form(deep))
    await raw.put(MESSAGES, MESSAGE + "b", message("b"))
    with pytest.raises(StorageError, match=f"'{MESSAGE}a' .* is nested too deep"):
        await store.get_messages("t1")
    assert [m.id for m in await store.get_messages_by_id("t1", ["b"])] == ["b"]


async def test_other_values_that_are_nested_too_deep_are_named(store: Storage, raw: RawKV) -> None:
    await raw.put(THREADS, THREAD, thread(metadata=nested(100_000)))
    with pytest.raises(StorageError, match=f"'{THREAD}' .* is nested too deep"):
        await store.get_thread_by_id("t1")
    run = {"workflow_name": "w", "run_id": "r1", "snapshot": nested(100_000), **TIMES}
    await raw.put(RUNS, RUN, run)
    with pytest.raises(StorageError, match=f"'{RUN}' .* is nested too deep"):
        await store.load_workflow_snapshot("w", "r1")
    await raw.put(THREADS, THREAD, thread())
    await raw.put(MESSAGES, LIST, nested(100_000))
    with pytest.raises(StorageError, match=f"'{LIST}' is not what the TypeScript store keeps"):
        await store.save_message(Message(thread_id="t1", role="user", content="new"))
    await raw.put(THREADS, THREAD, stringify(thread(x="DEEP")).replace('"DEEP"', nested(100_000)))
    with pytest.raises(StorageError, match=f"'{THREAD}' .* is nested too deep"):
        await store.update_thread("t1", title="new")
