"""The blocking client."""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import httpx2

from broker.client import (
    approval_calls,
    approval_waiting,
    caller_calls,
    calls,
    decisions,
    ending_calls,
    exits,
    grant_calls,
    openings,
    overview_calls,
    policy_calls,
    reconcile_calls,
    transport,
)
from broker.client.connections import Connections
from broker.client.errors import ConnectionFailed
from broker.client.messages import Conversation
from broker.client.methods import describe
from broker.client.running import RunningTask
from broker.client.session import Session
from broker.client.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from broker.client.dpop import DpopKey
    from broker.client.identity import Identity
    from broker.client.messages import Call, Flow, PageCall, Request, Response
    from broker.client.openings import Opening
    from broker.client.retrying import Retries
    from broker.client.tls import Tls
    from broker.clock import Clock
    from broker.secret import Secret

P = ParamSpec("P")
T = TypeVar("T")


def _one(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(build(*args, **kwargs))

    describe(method, build, "T")
    return method


def _talk(build: Callable[P, Conversation[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(build(*args, **kwargs))

    describe(method, build, "T")
    return method


def _each(build: Callable[P, PageCall[T]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        call = build(*args, **kwargs)
        while True:
            page = self.run(call)
            yield from page.items
            if page.next is None:
                return
            call = call.turn(page.next)

    describe(method, build, "Iterator[T]")
    return method


def _running(build: Callable[P, Opening]) -> Callable[Concatenate[Client, P], RunningTask]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> RunningTask:
        return self.running(build(*args, **kwargs))

    describe(method, build, "RunningTask")
    return method


class Client:
    """Talks to a broker and waits for its answers; safe to share among threads.

    What isn't given comes from the environment: the ``url`` from ``BROKER_URL``, the ``identity``
    from the first source that is there (``environment.py`` lists them). ``identity`` returns the
    caller's workload JWT, and is asked again whenever one is needed. An agent acts under one task
    at a time: give its ``task_id``, or set ``BROKER_TASK_ID``; an empty text means none.

    ``audience`` is whom minted identities are for (``BROKER_AUDIENCE``), ``tls`` whom to trust and
    which certificate to show, ``dpop`` a key that tokens are bound to: one of one's own, its
    file, or True for a new one. ``timeout`` is how many seconds an answer may keep silent,
    ``retries`` how often and how long a call is tried. ``http_transport`` is the seam for tests
    and for other ways to reach the broker.

        with Client() as broker:
            with broker.task("report-writer", "nightly report", ["orders-read"]) as task:
                orders = task.grant("orders-read")

    ``task`` and ``join`` see to the whole life of a task; the other methods are
    one call each. The ``list_`` ones read one page, the ``iter_`` ones go through all pages.
    """

    def __init__(  # noqa: PLR0913  what a caller may choose, each with a default
        self,
        url: str | None = None,
        identity: Identity | None = None,
        *,
        task_id: str | None = None,
        audience: str | None = None,
        tls: Tls | None = None,
        dpop: DpopKey | Path | str | bool | None = None,
        timeout: float = transport.TIMEOUT,
        retries: Retries | None = None,
        http_transport: httpx2.BaseTransport | None = None,
        clock: Clock | None = None,
        sealed: bool = False,
    ) -> None:
        """Nothing is sent until the first call. A ``sealed`` one sees no credential."""
        self._session = Session.configured(
            url,
            identity,
            task_id,
            clock,
            audience=audience,
            tls=tls,
            dpop=dpop,
            retries=retries,
            own_transport=http_transport is not None,
            sealed=sealed,
        )
        wire = Connections(self._session.tls, http_transport)
        self._settings, self._given = transport.settings(timeout), http_transport is not None
        self._http = httpx2.Client(transport=wire, **self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Tasks that this client still has open are cancelled first."""
        exits.end(exits.of(self), "its client was closed")
        self._http.close()

    def running(self, opening: Opening) -> RunningTask:
        """Return the handle of a task; ``task`` and ``join`` are this with an opening made up."""
        work = Work(opening, self._session.task_id, self._session.clock)
        return RunningTask(self, work, self._twin)

    def _twin(self) -> AbstractContextManager[Client]:
        """Return this caller with connections of its own; a transport that was given is shared."""
        return nullcontext(self) if self._given else Client.of(self._session, self._settings)

    @classmethod
    def of(cls, session: Session, settings: dict[str, Any]) -> Self:
        """Make a client of a caller that is known already; ``settings`` are those of httpx2."""
        made = cls.__new__(cls)
        http = httpx2.Client(transport=Connections(session.tls, None), **settings)
        vars(made).update(_session=session, _settings=settings, _given=False, _http=http)
        return made

    def presenting(self, token: Secret) -> Client:
        """Return a client that acts for whoever has presented an access token to the caller.

        The caller is the resource server that the token is for. The broker gets another one, made
        of it (RFC 8693), by which no credential is seen. Connections are shared: close this one.
        """
        made = copy.copy(self)
        made._session = self._session.presenting(token)  # noqa: SLF001  a copy of ourselves
        return made

    def run(self, call: Call[T] | Conversation[T]) -> T:
        """Make one call, or several; the methods below are this with a call already made up."""
        session = self._session
        flow = call.hold(session) if isinstance(call, Conversation) else session.run(call)
        return self._play(flow)

    def _play(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                try:
                    response = self._send(request)
                except ConnectionFailed as error:
                    request = flow.throw(error)
                else:
                    request = flow.send(response)
        except StopIteration as end:
            return end.value

    def _send(self, request: Request) -> Response:
        if request.delay:
            time.sleep(request.delay)
        if request.work is not None:
            return request.work()
        arguments = transport.arguments(self._session.url, request, self._http.timeout)
        try:
            answer = self._http.request(**arguments)
        except httpx2.RequestError as error:
            raise transport.failed(self._session.url, error) from error
        return transport.received(answer)

    task = _running(openings.task)
    join = _running(openings.join)

    open_task = _one(calls.open_task)
    list_tasks = _one(calls.list_tasks)
    iter_tasks = _each(calls.list_tasks)
    get_task = _one(calls.get_task)
    get_task_power = _one(calls.get_task_power)
    task_tree = _one(calls.task_tree)
    heartbeat = _one(calls.heartbeat)
    complete = _one(calls.complete)

    request_grant = _one(grant_calls.request_grant)
    unwrap_grant = _one(grant_calls.unwrap_grant)
    redeem = _one(grant_calls.redeem)
    renew_grant = _one(grant_calls.renew_grant)
    rotate_grant = _one(grant_calls.rotate_grant)
    list_grants = _one(calls.list_grants)
    iter_grants = _each(calls.list_grants)
    get_grant = _one(calls.get_grant)
    revoke_grant = _one(calls.revoke_grant)
    get_receipt = _one(ending_calls.get_receipt)
    retry_grant = _one(ending_calls.retry_grant)
    abandon_grant = _one(ending_calls.abandon_grant)
    get_key_set = _one(ending_calls.get_key_set)

    list_approvals = _one(approval_calls.list_approvals)
    iter_approvals = _each(approval_calls.list_approvals)
    get_approval = _one(approval_calls.get_approval)
    wait_for_approval = _talk(approval_waiting.wait_for_approval)
    approve = _one(approval_calls.approve)
    deny = _one(approval_calls.deny)
    withdraw_approval = _one(approval_calls.withdraw_approval)
    elevate = _one(approval_calls.elevate)
    list_elevations = _one(approval_calls.list_elevations)
    iter_elevations = _each(approval_calls.list_elevations)
    end_elevation = _one(approval_calls.end_elevation)
    break_glass = _one(approval_calls.break_glass)
    list_reviews = _one(approval_calls.list_reviews)
    iter_reviews = _each(approval_calls.list_reviews)
    close_review = _one(approval_calls.close_review)

    revoke = _one(calls.revoke)
    freeze = _one(calls.freeze)
    thaw = _one(calls.thaw)
    list_freezes = _one(calls.list_freezes)
    iter_freezes = _each(calls.list_freezes)
    report_signal = _one(calls.report_signal)
    clear_signal = _one(calls.clear_signal)
    list_signals = _one(calls.list_signals)
    iter_signals = _each(calls.list_signals)
    unused_power = _one(calls.unused_power)
    check_tool_call = _one(decisions.check_tool_call)
    report_execution = _one(decisions.report_execution)
    get_policies = _one(policy_calls.get_policies)
    reload_policies = _one(policy_calls.reload_policies)
    who_can = _one(policy_calls.who_can)
    explain_decision = _one(policy_calls.explain_decision)
    list_quotas = _one(policy_calls.list_quotas)
    iter_quotas = _each(policy_calls.list_quotas)
    reconcile = _one(reconcile_calls.reconcile)
    last_reconciliation = _one(reconcile_calls.last_reconciliation)
    get_overview = _one(overview_calls.get_overview)
    preview_revocation = _one(overview_calls.preview_revocation)
    dry_run = _one(overview_calls.dry_run)
    get_audit_event = _one(overview_calls.get_audit_event)
    list_keys = _one(calls.list_keys)
    rotate_keys = _one(calls.rotate_keys)
    list_principals = _one(calls.list_principals)
    iter_principals = _each(calls.list_principals)
    get_principal = _one(calls.get_principal)
    add_principal = _one(calls.add_principal)
    suspend_principal = _one(calls.suspend_principal)
    resume_principal = _one(calls.resume_principal)
    retire_principal = _one(calls.retire_principal)
    review_principal = _one(calls.review_principal)
    list_owners = _one(calls.list_owners)
    iter_owners = _each(calls.list_owners)
    retire_owner = _one(calls.retire_owner)
    reinstate_owner = _one(calls.reinstate_owner)
    audit_events = _one(calls.audit_events)
    iter_audit_events = _each(calls.audit_events)
    introspect = _one(calls.introspect)
    get_issuer = _talk(caller_calls.get_issuer)
    whoami = _one(caller_calls.whoami)
    list_capabilities = _one(caller_calls.list_capabilities)
