"""Files that were open in a process when it was forked.

SQLite believes that its process has the locks it has taken. A forked process has none of them,
but SQLite's memory of them: opened there once more, the file would have no lock at all, and
whoever closes it elsewhere would delete the log under it, with what was committed. So what was
inherited is closed before the same file is opened.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from mastra_storage.errors import UnavailableError

# The bytes that a reader of a file has locked; see "File locking" in SQLite's file os_unix.c.
_SHARED_FIRST = 0x40000002
_SHARED_SIZE = 510


class Opened(Protocol):
    """What has a file open."""

    process: int
    """The one that opened it."""

    file: tuple[int, int] | None
    """What `identity` gives for it."""

    def is_at_rest(self) -> bool:
        """Whether no thread is within SQLite, or was in it when this process was forked."""
        ...

    def drop(self) -> None:
        """Close all connections, in a process that has none of the threads."""
        ...


_opened: set[Opened] = set()


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another of its name; `None` when it is not to be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remember(opened: Opened) -> None:
    """A file is open from now on."""
    _opened.add(opened)


def forget(opened: Opened) -> None:
    """It is closed."""
    _opened.discard(opened)


def drop_inherited(path: Path) -> None:
    """Close what this process has inherited of a file that it is about to open.

    Raises `UnavailableError` where that cannot be done safely.
    """
    file = identity(path)
    process = os.getpid()
    # A copy: other threads open and close files of theirs.
    inherited = [each for each in _opened.copy() if each.process != process and each.file == file]
    if file is None or not inherited:
        return
    if sys.platform != "linux" or not all(each.is_at_rest() for each in inherited):
        raise UnavailableError(
            f"{path} was in use when this process was forked, and cannot be opened in it; fork "
            "before the file is opened, or start processes by 'spawn' or 'forkserver'",
            retryable=False,
        )
    with _locked(path):
        for each in inherited:
            each.drop()
            forget(each)


if sys.platform == "linux":
    import fcntl

    @contextmanager
    def _locked(path: Path) -> Iterator[None]:
        """Lock a file for reading, not as this process but as the descriptor that it is open by.

        A connection that is closed meanwhile does not take itself for the last one, which would
        bring the log into the file and delete it: what it knows of both may be of long ago.
        """
        lock = struct.pack("hhqqi0q", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
        with ExitStack() as closing:
            try:
                descriptor = os.open(path, os.O_RDONLY)
                closing.callback(os.close, descriptor)
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
            except OSError as exc:
                raise UnavailableError(
                    f"{path} could not be locked to open it in a forked process "
                    f"({exc.strerror}); try again"
                ) from exc
            yield
