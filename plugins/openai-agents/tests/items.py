"""Invented items of every kind that a session is given."""

from __future__ import annotations

import json
from typing import Any

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVQ="
SAFETY_CHECKS = [{"id": "sc_1", "code": "none", "message": "fine"}]

# By the role that the message of each has.
ITEMS: list[tuple[str, dict[str, Any]]] = [
    ("user", {"role": "user", "content": "Fly me to Tromsø, 東京 or 🛫\u0000\u2028 — for ≤ 1e3 €"}),
    ("system", {"role": "system", "content": "Be brief.", "type": "message"}),
    ("developer", {"role": "developer", "content": [{"type": "input_text", "text": "a"}]}),
    (
        "user",
        {
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [
                {"type": "input_text", "text": "what is this?"},
                {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
                {"type": "input_file", "file_data": "JVBERg==", "filename": "a b.pdf"},
            ],
        },
    ),
    (
        "assistant",
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "gAAA+/=",
            "content": None,
        },
    ),
    (
        "assistant",
        {
            "id": "fc_1",
            "type": "function_call",
            "call_id": "call_1",
            "name": "find_flights",
            "arguments": '{"to": "TOS",  "max": 1.50}',
            "status": "completed",
        },
    ),
    ("tool", {"type": "function_call_output", "call_id": "call_1", "output": '{"price": 1e2}'}),
    (
        "tool",
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_image", "image_url": PIXEL}],
        },
    ),
    # A handoff is a call and its output.
    (
        "assistant",
        {
            "type": "function_call",
            "call_id": "call_2",
            "name": "transfer_to_booking",
            "arguments": "{}",
        },
    ),
    (
        "tool",
        {"type": "function_call_output", "call_id": "call_2", "output": '{"assistant": "Booking"}'},
    ),
    (
        "assistant",
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": "Done.",
                    "annotations": [{"type": "url_citation", "url": "https://a.example/?q=%2F"}],
                    "logprobs": [{"token": "Done", "logprob": -0.0, "bytes": [68], "top": 1e-320}],
                },
                {"type": "refusal", "refusal": "no"},
            ],
        },
    ),
    ("assistant", {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}}),
    ("assistant", {"type": "file_search_call", "id": "fs_1", "queries": ["a"], "results": None}),
    (
        "assistant",
        {"type": "computer_call", "call_id": "c", "action": {"type": "click", "x": 1, "y": 2.0}},
    ),
    (
        "tool",
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": PIXEL},
            "acknowledged_safety_checks": SAFETY_CHECKS,
        },
    ),
    ("assistant", {"type": "code_interpreter_call", "id": "ci", "code": "print(1)\n\t# ü"}),
    ("assistant", {"type": "image_generation_call", "id": "ig", "result": "iVBOR"}),
    ("assistant", {"type": "local_shell_call", "id": "ls", "action": {"command": ["ls", "-l"]}}),
    ("tool", {"type": "local_shell_call_output", "id": "ls", "output": "total 0\r\n"}),
    ("assistant", {"type": "shell_call", "call_id": "sh", "action": {"commands": ["true"]}}),
    ("tool", {"type": "shell_call_output", "call_id": "sh", "output": [{"stdout": "\\ud800"}]}),
    ("assistant", {"type": "apply_patch_call", "call_id": "ap", "operation": {"diff": "@@\n+a"}}),
    ("tool", {"type": "apply_patch_call_output", "call_id": "ap", "status": "completed"}),
    ("assistant", {"type": "custom_tool_call", "call_id": "ct", "name": "x", "input": ""}),
    ("tool", {"type": "custom_tool_call_output", "call_id": "ct", "output": "y"}),
    ("assistant", {"type": "tool_search_call", "arguments": {"q": ["a"]}}),
    ("tool", {"type": "tool_search_output", "tools": []}),
    ("assistant", {"type": "mcp_list_tools", "id": "m1", "server_label": "s", "tools": []}),
    (
        "assistant",
        {"type": "mcp_approval_request", "id": "m2", "name": "n", "arguments": "{}"},
    ),
    (
        "user",
        {"type": "mcp_approval_response", "approval_request_id": "m2", "approve": True},
    ),
    ("assistant", {"type": "mcp_call", "id": "m3", "name": "n", "arguments": "{}", "output": None}),
    ("assistant", {"type": "item_reference", "id": "msg_1"}),
    ("assistant", {"type": "compaction", "id": "cmp", "encrypted_content": "x"}),
    ("assistant", {"id": "no type", "usage": 12345678901234567890123, "empty": {}, "": [[], ""]}),
    (
        "user",
        {
            "role": "user",
            "content": "x",
            "numbers": [0, -0.0, 1.0, 1e22, 0.1, 5e-324, 2**53 + 1, True, False, None],
            "$members": {"a.b": 1, "$oid": {"__proto__": "constructor"}},
        },
    ),
]


def as_json(items: Any) -> list[str]:
    """What the SDK's own sessions would store: members in their order, 1 apart from 1.0."""
    return [json.dumps(item) for item in items]
