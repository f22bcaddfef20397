"""Risk signals over the wire: requests as the broker accepts them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from broker.wire import Duration, Id, Name, OneOf, Request, Text, Who

MAX_RISK: Final = 100
Verdict = Literal["clean", "suspicious", "compromised"]


class Concerned(OneOf):
    """Exactly one of these: a task with all below it, an agent, or an owner."""

    task_id: Id | None = None
    agent: Name | None = None
    owner: Who | None = None


class ReportSignal(Request):
    """``POST /v1/signals``: a risk, a verdict, or both. What isn't said is 0, and clean."""

    selector: Concerned
    risk: Annotated[int, Field(ge=0, le=MAX_RISK)] | None = None
    verdict: Verdict | None = None
    reason: Text
    ttl: Duration | None = None

    @model_validator(mode="after")
    def _says_something(self) -> ReportSignal:
        if self.risk is None and self.verdict is None:
            msg = "must say a risk, a verdict, or both"
            raise ValueError(msg)
        return self


class TakeBackSignal(Request):
    """``DELETE /v1/signals``."""

    selector: Concerned
    reason: Text
