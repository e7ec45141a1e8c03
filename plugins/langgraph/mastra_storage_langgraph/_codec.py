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

__all__ = ["Codec", "Form", "Text", "form_of", "size_of", "text_of"]

Text: TypeAlias = str | list[str]
"""A form in a row: base64 of msgpack, or the name of another format and base64."""

Form: TypeAlias = tuple[str, bytes]
"""What a serialiser makes of a value: the name of a format, and bytes."""

_USUAL: Final = "msgpack"
_DIGEST_BYTES: Final = 16


class Codec:
    """Serialises for rows, by the serialiser of a saver."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self._plain = serde.serde if isinstance(serde, EncryptedSerializer) else None

    def form(self, value: Any) -> Form:
        """A value as it is stored."""
        return self._serde.dumps_typed(value)

    def value(self, form: Form) -> Any:
        """What a form was made of."""
        return self._serde.loads_typed(form)

    def text(self, value: Any) -> Text:
        """A value as a row has it."""
        return text_of(self.form(value))

    def read(self, text: Text) -> Any:
        """What a text was made of."""
        return self.value(form_of(text))

    def compare(self, value: Any) -> tuple[bytes, Form | None]:
        """The digest of a value, and its form where that came with it for free."""
        if self._plain is not None:
            return _digest(*self._plain.dumps_typed(value)), None
        form = self._serde.dumps_typed(value)
        return _digest(*form), form

    def opened(self, form: Form) -> tuple[Any, bytes]:
        """What a form was made of, and the digest of that."""
        value = self._serde.loads_typed(form)
        if self._plain is not None:
            form = self._plain.dumps_typed(value)
        return value, _digest(*form)


def text_of(form: Form) -> Text:
    """A form as a row has it."""
    kind, data = form
    encoded = b2a_base64(data, newline=False).decode("ascii")
    return encoded if kind == _USUAL else [kind, encoded]


def size_of(text: Text) -> int:
    """How many characters a text has."""
    return len(text) if isinstance(text, str) else sum(map(len, text))


def form_of(text: Text) -> Form:
    """The form that a row has as `text`."""
    kind, encoded = (_USUAL, text) if isinstance(text, str) else text
    return kind, a2b_base64(encoded)


def _digest(kind: str, data: bytes) -> bytes:
    if kind == _USUAL:
        return blake2b(data, digest_size=_DIGEST_BYTES).digest()
    return blake2b(data, digest_size=_DIGEST_BYTES, person=kind.encode()[:16]).digest()
