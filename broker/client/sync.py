"""The blocking client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

import httpx2

from broker.client import (
    approval_calls,
    approval_waiting,
    calls,
    decisions,
    ending_calls,
    grant_calls,
    overview_calls,
    policy_calls,
    reconcile_calls,
    transport,
)
from broker.client.errors import ConnectionFailed
from broker.client.messages import Conversation
from broker.client.methods import describe
from broker.client.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.client.environment import Identity
    from broker.client.messages import Call, Flow, PageCall, Request, Response
    from broker.clock import Clock

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


class Client:
    """Talks to a broker and waits for its answers; safe to share among threads.

    Without ``url`` or ``identity`` they come from the environment: ``BROKER_URL``, and
    ``BROKER_IDENTITY_TOKEN_FILE`` or ``BROKER_IDENTITY_TOKEN``. ``identity`` returns the caller's
    workload JWT, and is asked again whenever one is needed. An agent acts under one task at a
    time: give its ``task_id``, or set ``BROKER_TASK_ID``; an empty text means none. ``timeout`` is
    in seconds, ``http_transport`` the seam for tests and for other ways to reach the broker.

        with Client() as broker:
            task = broker.open_task("report-writer", "nightly report", ["orders-read"], ttl="15m")
            grant = broker.request_grant(task.task_id, "orders-read")

    The ``list_`` methods read one page, the ``iter_`` ones go through all pages.
    """

    def __init__(
        self,
        url: str | None = None,
        identity: Identity | None = None,
        *,
        task_id: str | None = None,
        timeout: float = transport.TIMEOUT,
        http_transport: httpx2.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Nothing is sent until the first call."""
        self._session = Session.configured(url, identity, task_id, clock)
        self._http = httpx2.Client(transport=http_transport, **transport.settings(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

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
        arguments = transport.arguments(self._session.url, request, self._http.timeout)
        try:
            answer = self._http.request(**arguments)
        except httpx2.RequestError as error:
            raise transport.failed(self._session.url, error) from error
        return transport.received(answer)

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
    who_am_i = _one(overview_calls.who_am_i)
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
