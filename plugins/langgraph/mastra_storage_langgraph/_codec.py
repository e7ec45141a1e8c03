"""Between values and what rows hold of them: typed bytes as base64, and digests.

Two values are the same when their serialised forms are. An encrypting serialiser never gives the
same bytes twice, so there the form before the encryption is compared; it is not stored.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

__all__ = ["Codec", "Text", "Typed", "size_of"]

Text: TypeAlias = str | list[str]
"""A value in a row: base64 of msgpack, or a list of another type's name and its base64."""

Typed: TypeAlias = tuple[str, bytes]
"""What a serialiser makes of a value: the name of its form, and the bytes."""

_USUAL: Final = "msgpack"
_DIGEST_BYTES: Final = 16


class Codec:
    """Serialises for rows, by the serialiser of a saver."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self._plain = serde.serde if isinstance(serde, EncryptedSerializer) else None

    def text(self, value: Any) -> Text:
        """A value as a row has it."""
        return _text(*self._serde.dumps_typed(value))

    def value(self, text: Text) -> Any:
        """What `text` was made of."""
        return self._serde.loads_typed(_typed(text))

    def compare(self, value: Any) -> tuple[bytes, Typed | None]:
        """The digest of a value, and its serialised form where that came with it for free."""
        if self._plain is not None:
            return _digest(*self._plain.dumps_typed(value)), None
        typed = self._serde.dumps_typed(value)
        return _digest(*typed), typed

    def packed(self, value: Any, typed: Typed | None) -> Text:
        """A value as a row has it, given what `compare` gave."""
        return self.text(value) if typed is None else _text(*typed)

    def opened(self, text: Text) -> tuple[Any, bytes]:
        """What `text` was made of, and the digest of that."""
        typed = _typed(text)
        value = self._serde.loads_typed(typed)
        if self._plain is not None:
            typed = self._plain.dumps_typed(value)
        return value, _digest(*typed)


def size_of(text: Text) -> int:
    """How many bytes a text takes in a row."""
    return len(text) if isinstance(text, str) else sum(map(len, text)) + 5


def _text(kind: str, data: bytes) -> Text:
    encoded = b2a_base64(data, newline=False).decode("ascii")
    return encoded if kind == _USUAL else [kind, encoded]


def _typed(text: Text) -> Typed:
    kind, encoded = (_USUAL, text) if isinstance(text, str) else text
    return kind, a2b_base64(encoded)


def _digest(kind: str, data: bytes) -> bytes:
    if kind == _USUAL:
        return blake2b(data, digest_size=_DIGEST_BYTES).digest()
    return blake2b(data, digest_size=_DIGEST_BYTES, person=kind.encode()[:16]).digest()
