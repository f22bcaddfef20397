"""A decision point elsewhere, spoken to by AuthZEN 1.0: OPA, Cerbos, Topaz and others.

It is asked what Cedar is asked here, as plain JSON. Whatever isn't a clear answer is a deny: no
answer in time, another status than 200, something that isn't JSON or of another form, obligations
that can't be read. What it answered is never repeated in a log or an error.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Final, cast

from broker.durations import parse_duration
from broker.identity.fetching import Fetcher, FetchError
from broker.logs import get_logger
from broker.policy.annotations import MAX_APPROVALS
from broker.policy.decision import NONE, Obligations, Verdict
from broker.policy.question import Action
from broker.policy.schema import CALL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from broker.policy.question import Question

log = get_logger("policy")
NAME: Final = "remote"
"""What decisions call it among the policies that made them."""
_NUMBER: Final = "X-Request-ID"


class RemoteDecisionPoint:
    """Asks one URL. ``instead`` says that the policies here aren't asked at all."""

    def __init__(
        self,
        url: str,
        *,
        instead: bool,
        timeout_s: float,
        token_file: Path | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """The files are read again when they change.

        Raises:
            ConfigError: ``ca_file`` holds no CA certificates.
        """
        self.instead = instead
        self._url = url
        self._fetcher = Fetcher(ca_file=ca_file, token_file=token_file, timeout_s=timeout_s)

    async def ask(self, question: Question) -> Verdict:
        """Answer a question; whatever goes wrong is a deny with an error."""
        number = secrets.token_hex(16)
        try:
            body = await self._fetcher.ask(self._url, evaluation(question), {_NUMBER: number})
            return verdict(body)
        except FetchError as error:
            said = str(error)
            log.warning("the remote decision point can't be asked", error=said, request=number)
            return _failed("it can't be asked")
        except (ValueError, RecursionError):
            log.warning("the remote decision point's answer can't be read", request=number)
            return _failed("its answer can't be read")


def evaluation(question: Question) -> dict[str, Any]:
    """Write a question as an Access Evaluation request (Authorization API 1.0 section 6.1)."""
    kind, name = question.resource
    is_call = question.action.startswith(CALL)
    return {
        "subject": {
            "type": str(question.principal_attributes["role"]),
            "id": question.principal,
            "properties": _plain(question.principal_attributes),
        },
        "action": {"name": str(Action.CALL_TOOL) if is_call else question.action},
        "resource": {
            "type": kind.lower(),
            "id": name,
            "properties": _plain(question.resource_attributes),
        },
        "context": _plain(question.context),
    }


def verdict(body: bytes) -> Verdict:
    """Read an answer (section 6.2).

    Raises:
        ValueError: it isn't one, or its obligations can't be read.
    """
    answer = json.loads(body, object_pairs_hook=_once)
    if not isinstance(answer, dict):
        raise ValueError("no object")  # noqa: TRY004  any fault of the answer is one kind
    found = cast("dict[str, Any]", answer)
    decision, context = found.get("decision"), found.get("context", {})
    if not isinstance(decision, bool) or not isinstance(context, dict):
        raise ValueError("no decision")  # noqa: TRY004  as above
    if not decision:
        return Verdict(allowed=False, policies=(NAME,))
    asked = cast("dict[str, Any]", context).get("obligations", {})
    return Verdict(allowed=True, policies=(NAME,), obligations=_obligations(asked))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a member that is there twice: which of the two was meant can't be known."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member twice")
    return found


def _obligations(asked: object) -> Obligations:
    """Read what the answer asks for: whatever isn't understood can't be met."""
    if not isinstance(asked, dict):
        raise ValueError("no obligations")  # noqa: TRY004  as above
    known = cast("dict[str, Any]", asked)
    if unknown := set(known) - set(_READERS):
        raise ValueError(f"{len(unknown)} unknown obligations")
    together = NONE
    for name, value in known.items():
        together |= _READERS[name](value)
    return together


def _approvals(value: object) -> Obligations:
    if type(value) is not int or not 0 <= value <= MAX_APPROVALS:
        raise ValueError("approvals")
    return Obligations(approvals=value)


def _max_ttl(value: object) -> Obligations:
    if not isinstance(value, str):
        raise ValueError("max_ttl")  # noqa: TRY004  as above
    return Obligations(max_ttl_ms=parse_duration(value))


def _notify(value: object) -> Obligations:
    words = cast("list[object]", value) if isinstance(value, list) else None
    if words is None or not all(isinstance(word, str) for word in words):
        raise ValueError("notify")
    return Obligations(notify=frozenset(map(str, words)))


def _flag(name: str) -> Callable[[object], Obligations]:
    def read(value: object) -> Obligations:
        if not isinstance(value, bool):
            raise ValueError(name)  # noqa: TRY004  as above
        return Obligations(**{name: value})  # pyright: ignore[reportArgumentType]  a flag's name

    return read


_READERS: Final[Mapping[str, Callable[[object], Obligations]]] = {
    "approvals": _approvals,
    "max_ttl": _max_ttl,
    "notify": _notify,
    "require_binding": _flag("require_binding"),
    "require_instant": _flag("require_instant"),
    "log_arguments": _flag("log_arguments"),
    "keep_budget": _flag("keep_budget"),
}


def _plain(value: Any) -> Any:  # noqa: ANN401  any JSON
    """Write Cedar's extension values as the texts they are made from."""
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value)
        if "__extn" in pairs:
            return pairs["__extn"]["arg"]
        return {name: _plain(inner) for name, inner in pairs.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in cast("list[Any]", value)]
    return value


def _failed(why: str) -> Verdict:
    return Verdict(allowed=False, policies=(NAME,), errors=(f"the remote decision point: {why}",))
