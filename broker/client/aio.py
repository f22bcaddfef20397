"""The asynchronous client: as ``Client``, with ``await`` and ``async for``."""

from __future__ import annotations

import asyncio
import copy
from functools import partial
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

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
from broker.client.aio_running import AsyncRunningTask
from broker.client.connections import AsyncConnections
from broker.client.errors import ConnectionFailed
from broker.client.messages import Conversation
from broker.client.methods import describe
from broker.client.scripts import unbroken
from broker.client.session import Session
from broker.client.sync import Client
from broker.client.work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from broker.client.dpop import DpopKey
    from broker.client.identity import Identity
    from broker.client.messages import Call, Flow, PageCall, Request, Response
    from broker.client.openings import Opening
    from broker.client.retrying import Retries
    from broker.client.tls import Tls
    from broker.clock import Clock
    from broker.secret import Secret

    Answer = Coroutine[Any, Any, "T"]

P = ParamSpec("P")
T = TypeVar("T")


def _one(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Answer[T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(build(*args, **kwargs))

    describe(method, build, "T")
    return method


def _talk(
    build: Callable[P, Conversation[T]],
) -> Callable[Concatenate[AsyncClient, P], Answer[T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(build(*args, **kwargs))

    describe(method, build, "T")
    return method


def _each(
    build: Callable[P, PageCall[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        call = build(*args, **kwargs)
        while True:
            page = await self.run(call)
            for item in page.items:
                yield item
            if page.next is None:
                return
            call = call.turn(page.next)

    describe(method, build, "AsyncIterator[T]")
    return method


def _running(
    build: Callable[P, Opening],
) -> Callable[Concatenate[AsyncClient, P], AsyncRunningTask]:
    def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncRunningTask:
        return self.running(build(*args, **kwargs))

    describe(method, build, "AsyncRunningTask")
    return method


class AsyncClient:
    """Talks to a broker without blocking the event loop; takes what ``Client`` takes."""

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
        http_transport: httpx2.AsyncBaseTransport | None = None,
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
        wire = AsyncConnections(self._session.tls, http_transport)
        self._settings, self._given = transport.settings(timeout), http_transport is not None
        self._http = httpx2.AsyncClient(transport=wire, **self._settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Tasks that this client still has open are cancelled first."""
        if left := exits.of(self):
            await unbroken(asyncio.to_thread(exits.end, left, "its client was closed"))
        await self._http.aclose()

    def running(self, opening: Opening) -> AsyncRunningTask:
        """Return the handle of a task; ``task`` and ``join`` are this with an opening made up."""
        work = Work(opening, self._session.task_id, self._session.clock)
        # A blocking client ends it where no event loop does; no transport is for both.
        twin = None if self._given else partial(Client.of, self._session, self._settings)
        return AsyncRunningTask(self, work, twin)

    def presenting(self, token: Secret) -> AsyncClient:
        """Return a client that acts for whoever has presented an access token to the caller.

        The caller is the resource server that the token is for. The broker gets another one, made
        of it (RFC 8693), by which no credential is seen. Connections are shared: close this one.
        """
        made = copy.copy(self)
        made._session = self._session.presenting(token)  # noqa: SLF001  a copy of ourselves
        return made

    async def run(self, call: Call[T] | Conversation[T]) -> T:
        """Make one call, or several; the methods below are this with a call already made up."""
        session = self._session
        flow = call.hold(session) if isinstance(call, Conversation) else session.run(call)
        return await self._play(flow)

    async def _play(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                try:
                    response = await self._send(request)
                except ConnectionFailed as error:
                    request = flow.throw(error)
                else:
                    request = flow.send(response)
        except StopIteration as end:
            return end.value

    async def _send(self, request: Request) -> Response:
        if request.delay:
            await asyncio.sleep(request.delay)
        if request.work is not None:
            return await asyncio.to_thread(request.work)
        arguments = transport.arguments(self._session.url, request, self._http.timeout)
        try:
            answer = await self._http.request(**arguments)
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
