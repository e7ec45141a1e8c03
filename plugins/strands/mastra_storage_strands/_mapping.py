"""How sessions, agents and messages of Strands become rows, threads and messages."""

from __future__ import annotations

import json
from typing import Any, Final

from strands.types.exceptions import SessionException
from strands.types.session import SessionMessage

from mastra_storage import InvalidRecordError, Key, Message
from mastra_storage_strands.tables import SESSIONS

# The member of a message's metadata for what Strands keeps of it besides role and content.
_STRANDS: Final = "strands"


def part_key(session_id: str, part: str) -> Key:
    """The key in `SESSIONS` of a part of a session."""
    return (_without_slash(session_id, "session"), part)


def part_record(key: Key, value: Any) -> dict[str, Any]:
    """What `SESSIONS` keeps for a part of a session."""
    return dict(zip(SESSIONS.key, key, strict=True)) | {"value": as_json(value)}


def thread_id_of(session_id: str, agent_id: str) -> str:
    """The thread of an agent's messages."""
    return f"{_without_slash(session_id, 'session')}/{_without_slash(agent_id, 'agent')}"


def message_id_of(number: int) -> str:
    """The id, in its thread, of an agent's message."""
    return f"{number:08}"


def kept(message: SessionMessage) -> tuple[str, list[Any], dict[str, Any]]:
    """Role, content and metadata of the message that keeps a message of Strands.

    The content is what the agent sees: that of the redaction, where there is one.
    """
    members = as_json(message.to_dict())
    shown: dict[str, Any] = members["redact_message"] or members["message"]
    role, content = shown["role"], shown.pop("content")
    return role, content, {_STRANDS: members}


def is_of_strands(message: Message) -> bool:
    """Whether a message is an agent's; other tools may write to its thread, too."""
    return _STRANDS in message.metadata


def session_message_of(message: Message) -> SessionMessage:
    """The message of Strands that a message keeps."""
    members: dict[str, Any] = dict(message.metadata[_STRANDS])
    shown = "message" if members["redact_message"] is None else "redact_message"
    members[shown] = members[shown] | {"role": message.role, "content": message.content}
    return SessionMessage.from_dict(members)


def as_json(value: Any) -> Any:
    """A value as JSON reads it back: keys that are numbers become text, and NaN null.

    Tools give such, and the stores of Strands' own take it. `SessionException` for what no JSON is.
    """
    try:
        return json.loads(json.dumps(value), parse_constant=lambda _: None)
    except (RecursionError, TypeError, ValueError) as exc:
        error = InvalidRecordError(f"what a session keeps must be JSON: {exc}")
        raise SessionException(str(error)) from error


def _without_slash(name: str, kind: str) -> str:
    if not name or "/" in name:
        raise SessionException(f"the {kind} id {name!r} must not be empty or have a slash")
    return name
