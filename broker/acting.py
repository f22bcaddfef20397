"""Who acts for whom, and what their token may be: rules over proofs that others have verified."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from broker.access import Caller, person_name
from broker.catalog import PrincipalState
from broker.delegation import Scope
from broker.errors import OAuthError
from broker.identity.models import Role
from broker.token_request import TaskDetail
from broker.tokens import nested_actor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.catalog import Principal
    from broker.identity.models import Identity
    from broker.tasks import Task
    from broker.token_request import TokenRequest

MAX_LINEAGE: Final = 8


@dataclass(frozen=True, slots=True)
class Proved:
    """What one token or certificate has proved: a principal, a person, or a caller of ours.

    ``audience`` is that of a token of ours.
    """

    name: str
    principal: Principal | None
    identity: Identity | None = None
    caller: Caller | None = None
    audience: tuple[str, ...] = ()


def acting(actor: Proved) -> Principal:
    """Return the principal that acts (RFC 8693 2.2.2: else ``invalid_request``)."""
    principal = actor.principal
    if principal is None:
        raise OAuthError(
            "invalid_request", "no principal is registered for this issuer and subject"
        )
    if principal.state is not PrincipalState.ACTIVE:
        raise OAuthError("invalid_request", f"the principal is {principal.state}")
    return principal


def whose_power(subject: Proved, presenter: Principal, issuer: str) -> Principal:
    """Return the principal whose power the exchange of a token of ours is about.

    One is exchanged by whom it is for, and by nobody else. One that was presented to a resource
    server that server exchanges, for a token to go on to us with: its agent's power, so that no
    token is ever passed through (RFC 8693 section 2.1). One for ourselves is exchanged by its
    agent, or by whoever acts for that.

    Raises:
        OAuthError: ``invalid_request``: it is for somebody else, or was exchanged so before.
    """
    caller = subject.caller
    serves = presenter.role is Role.RESOURCE_SERVER and presenter != subject.principal
    audience = presenter.resource if serves else issuer
    if caller is None or not audience or audience not in subject.audience:
        msg = "subject_token: the token is meant for another audience"
        raise OAuthError("invalid_request", msg)
    if caller.presenter:
        msg = "subject_token: a resource server's token for somebody else isn't exchanged again"
        raise OAuthError("invalid_request", msg)
    if not serves:
        return presenter
    if caller.task is None:
        raise OAuthError("invalid_request", "subject_token: not the token of an agent's task")
    return caller.principal


def act_of(task: Task, presenter: str) -> Mapping[str, Any]:
    """Return the ``act`` of a task's token; a resource server that goes on with it is newest."""
    newest, *before = (presenter, *task.actors) if presenter else task.actors
    return nested_actor(newest, tuple(before))


def narrowed(
    ask: TokenRequest,
    subject: Proved | None,
    principal: Principal,
    task: Task | None,
    cnf: Mapping[str, str],
    presenter: Principal,
) -> Caller:
    """Return the caller that the new token will be: never more than the one it comes from.

    Where the ``presenter`` isn't the ``principal``, it is a resource server that goes on for it.
    """
    wanted = ask.detail.capabilities if ask.detail else None
    before = subject.caller if subject else None
    if before is None:
        return Caller(principal=principal, task=task, cnf=cnf, capabilities=wanted)
    if before.cnf and before.cnf != cnf:
        # RFC 9449 section 5: whoever stole a bound token can't exchange it for a free one.
        msg = "subject_token: it is bound to a key that this request doesn't prove"
        raise OAuthError("invalid_request", msg)
    if before.task is None and task is not None:
        # An orchestrator's own token: its tasks go on without it, so what is had in them does too.
        before = replace(before, lineage=())
    if before.capabilities is not None:
        # The task is another where a parent's token is exchanged: of what that is good for, the
        # child may have less.
        left = before.capabilities.intersection(task.capabilities if task else ())
        wanted = left if wanted is None else wanted
        if not left or not wanted <= left:
            msg = "capabilities: the subject token is good for less"
            raise OAuthError("invalid_authorization_details", msg)
    if len(before.lineage) > MAX_LINEAGE:
        raise OAuthError("invalid_request", "subject_token: exchanged too many times")
    same = before.task is not None and task is not None and before.task.id == task.id
    return replace(
        before,
        principal=principal,
        task=task,
        cnf=cnf,
        capabilities=wanted,
        may_act=before.may_act if same else None,  # it is another's token from here on
        sealed=before.sealed or presenter is not principal,
        presenter="" if presenter is principal else presenter.name,
    )


def who_may_act(caller: Caller) -> frozenset[str] | None:
    """Return who may act for a caller: whom its task, its principal and its token all name."""
    task = caller.task
    named = (Scope.of(task).may_act if task else None, caller.principal.delegates_to)
    found = caller.may_act
    for agents in named:
        found = agents if found is None else found if agents is None else found & agents
    return found


def check_delegation(subject: Proved, actor: Proved, task: Task | None) -> None:
    """Somebody acts for another: their task must say just that (RFC 8693 section 1.1)."""
    if task is None:
        msg = "actor_token: only an agent acts for others, within a task"
        raise OAuthError("invalid_request", msg)
    if subject.principal is not None and subject.principal.state is not PrincipalState.ACTIVE:
        raise OAuthError(
            "invalid_request", f"subject_token: its principal is {subject.principal.state}"
        )
    if subject.caller is not None and subject.caller.task is not None:
        given = subject.caller.task.id
        fits = given in (task.parent_id, task.id if actor.principal == subject.principal else "")
    else:
        fits = task.subject == subject.name
        if subject.identity is not None:  # somebody's who is a principal besides
            fits = fits or task.subject == person_name(subject.identity)
    if not fits:
        msg = "subject_token: the task that is named doesn't run on behalf of its subject"
        raise OAuthError("invalid_request", msg)


def same_task(subject: Proved | None) -> TaskDetail | None:
    """A task token that is exchanged stays with its task."""
    caller = subject.caller if subject else None
    return TaskDetail(caller.task.id) if caller and caller.task else None


def check_may_act(subject: Proved, actor: Proved) -> None:
    """Enforce ``may_act`` (RFC 8693 section 4.4): only who it names may act for the subject.

    A token that carries one and comes without an actor is refused as well: else whoever is named
    could leave itself out, and pass for the subject. One of ours may come without: what is had by
    it then is its own agent's still, in its own task, and says the same ``act`` and ``may_act``.
    """
    if subject.caller is not None:
        named = subject.caller.may_act
        own = actor.principal is not None and actor.principal.name == subject.caller.name
        if named is not None and not own and actor.name not in named:
            raise OAuthError("invalid_request", "actor_token: not one that may_act names")
        return
    if subject.identity is None or "may_act" not in subject.identity.claims:
        return
    may_act = subject.identity.claims["may_act"]
    if not isinstance(may_act, dict) or actor is subject or actor.identity is None:
        raise OAuthError("invalid_request", "subject_token: its may_act wants an actor_token")
    party = cast("Mapping[str, Any]", may_act)
    # Subjects repeat. One without an issuer is of the issuer that says so.
    who = (party.get("iss", subject.identity.issuer), party.get("sub"))
    if who != (actor.identity.issuer, actor.identity.subject):
        raise OAuthError("invalid_request", "actor_token: not the one that may_act names")


def how(actor: Proved) -> dict[str, str]:
    """Say in the log how the one that acts was proved."""
    if actor.identity is not None:
        who = f"{actor.identity.issuer} {actor.identity.subject}"
        return {"identity": who, "method": actor.identity.method}
    return {"identity": actor.name, "method": "access_token" if actor.caller else "private_key_jwt"}
