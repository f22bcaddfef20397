"""An agent that wants to send a mail which only a human may let out: how approvals come to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAIL: Final[dict[str, Any]] = {"to": ["c@example.com"], "subject": "Your order 1042"}
TOOLS: Final = ["customer-lookup", "fetch-page", "send-email"]
BEFORE: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("customer-lookup", {"customer": "c-7"}),
    ("fetch-page", {"url": "https://orders.example/1042"}),
)
"""What a chain has done by then: read what is private, taken in what anybody may have written."""


def question(task: Mapping[str, Any], tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a task may call a tool, as AuthZEN asks it."""
    return {
        "subject": {"type": "task", "id": task["task_id"]},
        "action": {"name": "call_tool"},
        "resource": {"type": "tool", "id": tool},
        "context": {"arguments": dict(arguments)},
    }


def approval_of(answer: Mapping[str, Any]) -> str:
    """The approval that a call waits for."""
    assert answer["decision"] is False, answer
    approval: str = answer["context"]["access_request"]["id"]
    return approval
