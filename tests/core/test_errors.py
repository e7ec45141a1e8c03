"""The error tree, as docs and DESIGN name it."""

from __future__ import annotations

import pickle

import pytest

import mastra_storage
from mastra_storage import errors
from mastra_storage.errors import (
    InvalidRecordError,
    PartialWriteError,
    RateLimitedError,
    StorageError,
    UnavailableError,
)

TREE = {
    "InvalidArgumentError": "StorageError",
    "InvalidRecordError": "InvalidArgumentError",
    "NotFoundError": "StorageError",
    "ConflictError": "StorageError",
    "AuthenticationError": "StorageError",
    "RateLimitedError": "StorageError",
    "UnavailableError": "StorageError",
    "TooLargeError": "StorageError",
    "PartialWriteError": "StorageError",
    "UnsupportedError": "StorageError",
    "PluginError": "StorageError",
    "PluginNotFoundError": "PluginError",
    "PluginLoadError": "PluginError",
}


def test_the_tree_is_the_contract() -> None:
    found = {
        name: getattr(errors, name).__base__.__name__
        for name in errors.__all__
        if name != "StorageError"
    }
    assert found == TREE
    for name in errors.__all__:
        assert getattr(mastra_storage, name) is getattr(errors, name)
        assert name in (errors.__doc__ or "")


def test_messages_name_backend_and_operation() -> None:
    assert str(StorageError("it broke")) == "it broke"
    error = UnavailableError("no answer; try again", backend="kv", operation="get_messages")
    assert str(error) == "kv: get_messages: no answer; try again"
    assert error.retryable


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (RateLimitedError("slow down", retry_after=2.5), True),
        (UnavailableError("closed", retryable=False), False),
        (PartialWriteError("half", failed=[("threads", ("t",))]), True),
        (InvalidRecordError("bad", field="content"), False),
        (StorageError("odd"), False),
    ],
)
def test_errors_survive_pickling(error: StorageError, retryable: bool) -> None:
    error.backend = "kv"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__
    assert str(again) == str(error)
    assert again.retryable is retryable
