"""The kit on the TypeScript store's layout, but for what that layout cannot do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kv_server import KVServer
from mastra_storage_cloudflare.interop import writes

from interop.typescript import interop_backend
from mastra_storage import Backend, Row
from mastra_storage.testing import StorageConformance
from mastra_storage.testing.suite import _build

MILLISECONDS = "times are kept to the millisecond"
IDS = "ids are not escaped, so that some are refused"
NO_SEQ = "of records other than messages, those of one time are ordered by their keys"
TABLES = "there are no tables of adapters"

LAYOUT_CANNOT = {
    "test_a_cancelled_save_is_whole_or_nothing": IDS,
    "test_a_save_may_be_cancelled_at_any_await": IDS,
    "test_a_saved_eval_reads_back_as_it_was": MILLISECONDS,
    "test_a_saved_message_reads_back_as_it_was": MILLISECONDS,
    "test_a_saved_thread_reads_back_as_it_was": MILLISECONDS,
    "test_a_thread_has_the_defaults_of_the_contract": MILLISECONDS,
    "test_any_id_works_for_messages": IDS,
    "test_any_id_works_for_threads": IDS,
    "test_clearing_a_table_spares_all_others": MILLISECONDS,
    "test_concurrent_batches_stay_together": IDS,
    "test_deleting_a_thread_of_many_messages": IDS,
    "test_deleting_a_thread_takes_its_messages_along": IDS,
    "test_parts_of_a_key_do_not_run_together": IDS,
    "test_random_calls_give_what_they_give_on_memory": IDS,
    "test_records_are_inserted_and_loaded_by_key": MILLISECONDS,
    "test_records_up_to_the_declared_size_are_kept": MILLISECONDS,
    "test_registered_tables_hold_mappings": TABLES,
    "test_threads_of_equal_times_keep_the_order_of_saving": NO_SEQ,
    "test_threads_with_odd_ids_keep_their_messages_apart": IDS,
    "test_times_of_all_years_are_kept_and_ordered": MILLISECONDS,
    "test_traces_are_saved_in_batches": NO_SEQ,
    "test_update_resource_changes_what_is_given": MILLISECONDS,
    "test_update_thread_changes_what_is_given": MILLISECONDS,
    "test_updating_an_unknown_resource_makes_it": MILLISECONDS,
    "test_what_json_does_not_have_is_refused": MILLISECONDS,
}
# Where the kit puts rows into a table of its own.
OWN_TABLE = tuple(f"mastra_storage.testing.suite.{part}" for part in ("queries", "rows", "verbs"))


@pytest.mark.once  # the same kit runs on the plain layout
class TestInterop(StorageConformance):
    """With times of whole milliseconds, and messages that are not given their thread's owner."""

    many = 1_050
    very_many = 2_100

    @pytest.fixture(autouse=True)
    def within_the_layout(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if reason := LAYOUT_CANNOT.get(request.function.__name__):
            pytest.skip(reason)
        if request.function.__module__ in OWN_TABLE:
            pytest.skip(TABLES)
        monkeypatch.setattr(_build, "T0", _build.T0.replace(microsecond=123_000))
        value = writes._value

        def unowned(row: Row, owners: object) -> bytes:
            return value(row, {})

        monkeypatch.setattr(writes, "_value", unowned)

    @pytest.fixture
    def make_backend(self, memory_kv: KVServer) -> Callable[[], Backend]:
        return lambda: interop_backend(memory_kv)


def test_what_is_left_out_is_in_the_kit() -> None:
    assert [name for name in LAYOUT_CANNOT if not hasattr(TestInterop, name)] == []
