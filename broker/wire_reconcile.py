"""Reconciling over the wire."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from broker.wire import Id, Text  # noqa: TC001  pydantic reads the annotations below
from broker.wire_parts import Name, Request


class Reconcile(Request):
    """``POST /v1/reconciliations``: compare, and with ``apply`` end what was shown before.

    ``shown`` is the ``at`` of the report that was looked at: nothing is ended if another run has
    come in between. ``release`` ends a quarantine, whatever is left; it needs a ``reason``.
    """

    apply: bool = False
    shown: Id | None = None
    backend: Name | None = None
    release: bool = False
    reason: Text | None = None

    @model_validator(mode="after")
    def _said_why(self) -> Self:
        if self.release and self.reason is None:
            msg = "a release needs a reason"
            raise ValueError(msg)
        return self
