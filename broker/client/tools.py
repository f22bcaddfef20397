"""Tools that a program calls for a task: no call without a decision, no decision without a report.

 1. Bind the call's arguments, and write them down as they are asked about
 2. Ask; a no is an error that says why, and the tool isn't called
 3. Call it
 4. Report what became of it: how long it took and a digest of the result, never the result

The task is in the wrapped function itself, not in a context variable: in whatever thread it is
called, it is called for that task.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
)

from broker.client.credential import Credential
from broker.client.decisions import check_tool_call, report_execution
from broker.client.errors import BrokerClientError, Conflict, ConnectionFailed, InvalidRequest
from broker.client.holding import HeldGrant, consented
from broker.client.scripts import Act
from broker.client.task_errors import refusal
from broker.client.work import LOG
from broker.durations import format_duration
from broker.secret import REDACTED, Secret

if TYPE_CHECKING:
    from broker.client.building import Duration
    from broker.client.decisions import Executed, ToolDecision
    from broker.client.holding import OnWait
    from broker.client.scripts import Script
    from broker.client.task_calls import Handle

P = ParamSpec("P")
R = TypeVar("R")
Arguments = Mapping[str, Any]
Destination = str | Callable[[Arguments], str | None]

_TRIES: Final = 3
_LONGEST_NAME: Final = 100


class _Asking(TypedDict, total=False):
    destination: Destination | None
    effects: Sequence[str]
    intent: str | None
    wait: Duration | None
    on_wait: OnWait | None


class Asking(_Asking, total=False):
    """How a tool is asked about; see ``tool``."""

    without: Collection[str]


class Guarding(_Asking, total=False):
    """How the tools behind a dispatcher are asked about; see ``Guard``."""

    names: Mapping[str, str]
    effects_of: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a tool is asked about, complete."""

    destination: Destination | None = None
    effects: Sequence[str] = ()
    intent: str | None = None
    without: Collection[str] = ()
    wait: Duration | None = None
    on_wait: OnWait | None = None


class Tool(Generic[P, R]):
    """A function that is called for tasks, not bound to one yet: ``task.bind(function)``.

    Called as it is it refuses: nobody would have been asked.
    """

    def __init__(self, function: Callable[P, R], name: str, terms: Terms) -> None:
        """``name`` is what the catalogue calls it."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidRequest(f"{name}: a tool returns when it is done; this one yields")
        self.function = function
        self.name = name
        self.terms = terms
        self._signature = inspect.signature(function)
        update_wrapper(self, function)

    def __call__(self, *_: P.args, **__: P.kwargs) -> R:
        """Refuse.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(
            f"The tool {self.name} is called for a task: use task.bind({self.function.__name__})",
            code="tool_not_bound",
        )

    def call(self, handle: Handle, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Script[R]:
        """Call it for a task."""
        act = Act(self.function, args, kwargs)
        return called(handle, self.name, self.arguments(args, kwargs), self.terms, act)

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, defaults too, as the function will see them.

        One that is None by default and in the call isn't there: to the decision point null is a
        value.

        Raises:
            TypeError: the function can't be called so.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        found: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            parameter = self._signature.parameters[name]
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                more = cast("dict[str, Any]", value)
                if twice := more.keys() & bound.arguments.keys():
                    # Two values by one name, of which one wouldn't be asked about.
                    raise TypeError(f"{self.name}: {', '.join(sorted(twice))} was given twice")
                found |= more
            elif name in self.terms.without:
                continue
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                found |= {name: value} if value else {}
            elif value is not None or parameter.default is not None:
                found[name] = value
        return found


def tool(name: str = "", **asking: Unpack[Asking]) -> Callable[[Callable[P, R]], Tool[P, R]]:
    """Declare a tool before there is a task; ``task.bind`` makes of it what can be called.

    ``name`` is the catalogue's, the function's own unless given. ``destination`` says where a call
    goes: a URL or a host, or a function that takes it from the arguments, by name. ``effects`` are
    what it does beyond the catalogue's. ``without`` names parameters that aren't asked about:
    handles that the program passes, never what a model chooses. Where a human has to say yes,
    ``wait`` is how long that is waited for, and ``on_wait`` is called meanwhile.
    """
    terms = Terms(**asking)
    return lambda function: Tool(function, name or _named(function), terms)


def declared(function: Callable[P, R] | Tool[P, R]) -> Tool[P, R]:
    """Return a tool as it is, and a function as the tool of its name."""
    if isinstance(function, Tool):
        return cast("Tool[P, R]", function)
    return Tool(function, _named(function), Terms())


def _named(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", type(function).__name__)


class Guard(Generic[R]):
    """A dispatcher, ``dispatch(name, arguments)``, whose every call is asked about."""

    def __init__(self, dispatch: Callable[..., R], guarding: Guarding) -> None:
        """``names`` are the catalogue's by the dispatcher's, where they differ."""
        self.dispatch = dispatch
        rest = dict(guarding)
        self._names = cast("Mapping[str, str]", rest.pop("names", {}))
        self._effects = cast("Mapping[str, Sequence[str]]", rest.pop("effects_of", {}))
        self._terms = Terms(**cast("Asking", rest))

    def call(
        self,
        handle: Handle,
        name: str,
        arguments: Arguments,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Script[R]:
        """Call one of its tools, whose arguments are a mapping."""
        if not isinstance(arguments, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  what a model says
            raise InvalidRequest(f"{name}: the arguments are a mapping", code="argument_not_json")
        effects = (*self._terms.effects, *self._effects.get(name, ()))
        act = Act(self.dispatch, (name, arguments, *args), kwargs)
        terms = replace(self._terms, effects=effects)
        return called(handle, self._names.get(name, name), arguments, terms, act)


def called(handle: Handle, name: str, arguments: Arguments, terms: Terms, act: Act) -> Script[Any]:
    """Ask, call, report."""
    written = _written(arguments)
    where = terms.destination
    if callable(where):
        where = where(arguments)
    question = check_tool_call(
        handle.task_id,
        name,
        written,
        destination=where,
        effects=terms.effects,
        intent=terms.intent,
    )

    def ask() -> Script[ToolDecision]:
        decision: ToolDecision = yield question
        if not decision.decision:
            raise refusal(name, decision)
        return decision

    decision: ToolDecision = yield from handle.work.guarded(
        consented(ask, terms.wait, terms.on_wait)
    )
    clock = handle.work.clock
    began = clock.monotonic()
    try:
        _check_unchanged(name, arguments, written)
        result = yield act
    except BaseException as error:
        outcome: Executed = "failed" if act.begun else "not_executed"
        yield from _report(handle, decision, outcome, clock.monotonic() - began, error=error)
        raise
    yield from _report(handle, decision, "succeeded", clock.monotonic() - began, result=result)
    return result


def _report(
    handle: Handle,
    decision: ToolDecision,
    outcome: Executed,
    took_s: float,
    *,
    error: BaseException | None = None,
    result: object = None,
) -> Script[None]:
    """Report; that it couldn't be doesn't take the result from who called the tool."""
    report = report_execution(
        handle.task_id,
        decision.decision_id,
        outcome,
        took=format_duration(max(round(took_s * 1000), 1)),
        result_digest=digest(result) if outcome == "succeeded" else None,
        error_type=None if error is None else _kind(error),
    )
    trouble: BrokerClientError | None = None
    for _ in range(_TRIES):
        try:
            yield report
        except ConnectionFailed as lost:
            trouble = lost
            continue
        except Conflict:
            return  # an answer was lost, and the report wasn't
        except BrokerClientError as refused:
            trouble = refused
        else:
            return
        break
    code = trouble.code if trouble else ""
    LOG.warning("decision %s couldn't be reported: %s", decision.decision_id, code)


def _kind(error: BaseException) -> str:
    """The name of an error's class, in the letters that a report takes."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "", type(error).__qualname__)[:_LONGEST_NAME] or "Exception"


def _check_unchanged(name: str, arguments: Arguments, asked: Mapping[str, Any]) -> None:
    """Refuse a call with other arguments than were asked about, maybe an hour ago."""
    if _written(arguments) != asked:
        raise InvalidRequest(
            f"{name}: its arguments were changed after they were asked about",
            code="arguments_changed",
        )


def _written(arguments: Arguments) -> dict[str, Any]:
    return {name: written_down(name, value) for name, value in arguments.items()}


def written_down(name: str, value: object) -> Any:  # noqa: ANN401  JSON
    """Return an argument as it is asked about; a secret is there, and isn't shown.

    Raises:
        InvalidRequest: it is nothing that JSON has.
    """
    kind = type(value).__name__
    match value:
        case Secret() | Credential() | HeldGrant():
            return REDACTED
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case Decimal() if math.isfinite(float(value)):
            return float(value)
        case list() | tuple():
            return [written_down(name, item) for item in cast("Sequence[object]", value)]
        case dict():
            row = cast("dict[object, object]", value)
            if all(isinstance(key, str) for key in row):
                return {key: written_down(name, item) for key, item in row.items()}
        case _:
            pass
    raise InvalidRequest(
        f"argument {name}: {kind} is nothing that can be asked about; pass text, a "
        "number, true or false or a list of texts, or name it in `without` if no model chooses it",
        code="argument_not_json",
    )


def digest(result: object) -> str | None:
    """Return the digest of a result: of text, of bytes, or of its JSON with its names in order."""
    if isinstance(result, bytes):
        content = result
    elif isinstance(result, str):
        content = result.encode("utf-8", "surrogatepass")
    else:
        try:
            text = json.dumps(result, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            return None
        content = text.encode("utf-8", "surrogatepass")
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
