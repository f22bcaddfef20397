"""Whether a request may go ahead: pure functions over what is known at that moment."""

from broker.policy.decision import Decision, Effect, IssueContext, OpenContext
from broker.policy.rules import decide_issue, decide_open

__all__ = ["Decision", "Effect", "IssueContext", "OpenContext", "decide_issue", "decide_open"]
