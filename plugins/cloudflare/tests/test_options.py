"""Options given as Python values and in URLs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from mastra_storage_cloudflare import CloudflareStore
from mastra_storage_cloudflare.options import retention_option, seconds_option

from mastra_storage import InvalidArgumentError, Table, open_storage

DAY = 24 * 3600 * 1_000_000


def test_retention_is_given_as_times_or_as_days() -> None:
    assert retention_option({"traces": timedelta(days=30)}) == {"traces": 30 * DAY}
    assert retention_option("traces:30,evals:0.5") == {"traces": 30 * DAY, "evals": DAY // 2}


@pytest.mark.parametrize(
    "value",
    [
        {"traces": 30},
        {"traces": timedelta(seconds=59)},
        {"traces": timedelta.max},
        timedelta(days=30),
        "traces",
        "traces:x",
        "traces:0",
        "traces:999999999",
    ],
)
def test_other_retention_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="retention"):
        retention_option(value)


@pytest.mark.parametrize("name", ["trace", "mastra_traces", "", "Traces", 5])
def test_retention_of_what_is_no_table_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no table; the tables are: threads, messages,"):
        CloudflareStore(bindings={"default": object()}, retention={name: timedelta(days=1)})
    with pytest.raises(InvalidArgumentError, match="no table"):
        open_storage(f"cloudflare://account?retention=traces:30,{name}:7", api_token="t")


def test_retention_of_tables_that_adapters_have(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = (Table(name=name, key=("id",)) for name in ("mine", "theirs"))
    monkeypatch.setattr("mastra_storage.plugins.load_tables", lambda: {"theirs": theirs})
    kept: dict[str | Table, timedelta] = {mine: timedelta(days=30), "theirs": timedelta(days=1)}
    assert retention_option(kept) == {"mine": 30 * DAY, "theirs": DAY}


def test_seconds_are_numbers() -> None:
    assert seconds_option("2.5", "s") == seconds_option(2.5, "s") == 2.5


@pytest.mark.parametrize("value", ["x", "-1", None, float("nan"), float("inf")])
def test_other_seconds_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="seconds"):
        seconds_option(value, "consistency_seconds")


@pytest.mark.parametrize(
    "query", ["consistency_seconds=x", "retention=traces", "interop=mastra&consistency_seconds=x"]
)
def test_options_of_a_url_are_checked_when_it_is_named(query: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cloudflare"):
        open_storage(f"cloudflare://account?{query}", api_token="t")


def test_what_a_url_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDFLARE_API_TOKEN", raising=False)
    with pytest.raises(InvalidArgumentError, match="no API token; set CLOUDFLARE_API_TOKEN"):
        open_storage("cloudflare://account")
    with pytest.raises(InvalidArgumentError, match="cloudflare://ACCOUNT_ID"):
        open_storage("cloudflare://", api_token="t")


@pytest.mark.parametrize("name", ["account_id", "api_token"])
def test_what_is_no_text_is_refused(name: str) -> None:
    given: dict[str, Any] = {"account_id": "a", "api_token": "t", name: 5}
    with pytest.raises(InvalidArgumentError, match=f"{name} must be a str, not int"):
        CloudflareStore(**given)


async def test_the_base_url_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", "not a url")
    with pytest.raises(InvalidArgumentError, match="base_url"):
        open_storage("cloudflare://account", api_token="t")
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", "")  # as compose files set what is not given
    open_storage("cloudflare://account", api_token="t")
    CloudflareStore(account_id="account", api_token="t")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"account_id": "a", "api_token": "t", "namespace_prefix": "a", "key_prefix": "b"}, "mean"),
        ({"bindings": {"default": object()}, "api_token": "t"}, "not both"),
    ],
)
def test_what_contradicts_itself_is_refused(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidArgumentError, match=fault):
        CloudflareStore(**given)
