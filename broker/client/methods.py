"""Gives a client's method the text and signature of the call that it makes."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SELF: Final = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)


def describe(
    method: Callable[..., object], build: Callable[..., object], returns: str, *, given: int = 0
) -> None:
    """Make ``method`` read like ``build`` with a ``self``, in ``help()`` and in tracebacks.

    ``returns`` is what it returns, where T stands for what the call is read into. ``given`` is how
    many of the first arguments come from the ``self``.
    ``functools.wraps`` won't do: ``inspect`` would take the first argument for ``self``.
    """
    asked = inspect.signature(build)
    kind, _, read = str(asked.return_annotation).removesuffix("]").partition("[")
    if kind == "PageCall" and returns == "T":
        read = f"Page[{read}]"
    method.__name__ = build.__name__
    method.__doc__ = build.__doc__
    vars(method)["__signature__"] = asked.replace(
        parameters=[_SELF, *list(asked.parameters.values())[given:]],
        return_annotation=re.sub(r"\bT\b", read, returns),
    )
