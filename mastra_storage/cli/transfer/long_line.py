"""A line of a file too long to be held: its messages are cut out one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Raw

from mastra_storage.errors import InvalidRecordError

__all__ = ["elements", "split_head"]

_MESSAGES = re.compile(rb'"messages"\s*:\s*\[')
# A string (whole, or cut off by the end of what was read), or what gives JSON its structure.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+(?:(?P<end>")|\\?\Z)|[{}\[\],]', re.DOTALL)


def split_head(start: bytes) -> tuple[dict[str, Raw], bytes] | None:
    """The members before the messages, and what was read of these; `None` where they are not."""
    found = _MESSAGES.search(start)
    if found is None:
        return None
    head = start[: found.start()].rstrip().removesuffix(b",")
    try:
        # Whole JSON when closed here: then these are the messages of the line itself.
        return msgspec.json.decode(head + b"}", type=dict[str, Raw]), start[found.end() :]
    except (msgspec.MsgspecError, UnicodeError):
        return None


def elements(read: bytes, more: Callable[[], bytes]) -> Iterator[bytes]:
    """The elements of an array, each as JSON, and then the line is at its end.

    `read` is what was read behind the opening bracket; `more` gives what follows of the line,
    and nothing at its end. Raises `InvalidRecordError` when the line ends elsewhere.
    """
    depth = count = at = 0
    while True:
        start, seen = 0, len(read)
        for token in _TOKEN.finditer(read, at):
            mark = token[0]
            if mark[0] == ord('"'):
                if token["end"] is None:
                    seen = token.start()
                    break
            elif mark in b"{[":
                depth += 1
            elif mark != b"," and depth:
                depth -= 1
            elif not depth:
                element = read[start : token.start()]
                if mark == b"," or count or element.strip():
                    yield element
                if mark != b",":
                    _check_tail(read[token.end() :], more)
                    return
                count += 1
                start = token.end()
        following = more()
        if not following:
            raise InvalidRecordError("ends in the middle of its messages")
        read, at = read[start:] + following, seen - start


def _check_tail(tail: bytes, more: Callable[[], bytes]) -> None:
    while following := more():
        tail = (tail + following)[:100]
    if tail.strip() != b"}":
        raise InvalidRecordError(
            "is very long and goes on behind its messages; put `messages` last, so that the "
            "line need not be held as a whole"
        )
