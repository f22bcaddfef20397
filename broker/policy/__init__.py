"""Whether a request may go ahead: pure functions over what is known at that moment."""

from broker.policy.decision import Decision, Effect, Obligations, Verdict
from broker.policy.question import Action, Question
from broker.policy.rules import (
    OpenContext,
    UseContext,
    decide_call,
    decide_elevate,
    decide_issue,
    decide_open,
)

__all__ = [
    "Action",
    "Decision",
    "Effect",
    "Obligations",
    "OpenContext",
    "Question",
    "UseContext",
    "Verdict",
    "decide_call",
    "decide_elevate",
    "decide_issue",
    "decide_open",
]
