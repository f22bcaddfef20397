"""No tool is called without a decision, and no decision stays without a report."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from broker.client import (
    ApprovalRequired,
    InvalidRequest,
    Secret,
    TaskEnded,
    ToolDenied,
    ToolNeedsApproval,
    tool,
)
from broker.client.tools import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.sdk.world import Sdk

TOOLS: Any = ("report-writer", "answer", ["customer-lookup", "fetch-page", "send-email"])
DEPLOYER: Any = ("report-writer", "release", ["deploy-tool"])


def test_an_allowed_call_is_made_and_reported(sdk: Sdk, client: Any) -> None:
    with client.task(*TOOLS) as task:

        @task.tool("customer-lookup", effects=["reads:mailbox"], intent="who is it?")
        def look_up(customer: str) -> dict[str, str]:
            """Look."""
            return {"name": f"Ann {customer}"}

        assert look_up.__name__ == "look_up"
        assert look_up("c-7") == {"name": "Ann c-7"}
    (report,) = sdk.events(task.task_id, "execution")
    assert report["outcome"] == "succeeded"
    assert report["result_digest"] == digest({"name": "Ann c-7"})
    assert report["duration_ms"] >= 1


def test_a_denied_call_is_not_made_and_says_why(sdk: Sdk, client: Any) -> None:
    made: list[str] = []
    with client.task("report-writer", "answer", ["fetch-page"]) as task:

        @task.tool("customer-lookup")
        def look_up(customer: str) -> None:
            made.append(customer)

        @task.tool()
        def fetch_page(url: int) -> None:
            made.append(str(url))

        with pytest.raises(ToolDenied) as caught:
            look_up("c-7")
        assert caught.value.decision_id.startswith("dec_")
        assert "customer-lookup" in str(caught.value)
        assert caught.value.code == "access_denied"
        with pytest.raises(ToolDenied):
            fetch_page(3)
        fetch = task.tool("fetch-page")(fetch_page_of(made))
        with pytest.raises(ToolDenied) as caught:
            fetch(3)
        assert caught.value.code == "not_a_string"
        assert "url" in caught.value.detail
    assert made == []
    assert sdk.events(task.task_id, "execution") == []


def fetch_page_of(made: list[str]) -> Any:
    def fetch(url: Any) -> None:
        made.append(url)

    return fetch


def test_a_call_that_fails_is_reported_by_its_kind(sdk: Sdk, client: Any) -> None:
    with client.task(*TOOLS) as task:

        @task.tool("fetch-page")
        def fetch(url: str) -> str:
            raise LookupError(f"hush {url}")

        with pytest.raises(LookupError, match="hush"):
            fetch("https://example.com/")
    (report,) = sdk.events(task.task_id, "execution")
    assert (report["outcome"], report["error_type"]) == ("failed", "LookupError")
    assert "hush" not in str(sdk.run(sdk.world.events(task.task_id)))


def name_only(name: str, _: Mapping[str, Any]) -> str:
    return name


def domain_of(arguments: Mapping[str, Any]) -> str:
    return arguments["to"][0].split("@")[1]


def test_a_denial_says_what_would_change_it(client: Any) -> None:
    with client.task(*TOOLS) as task:
        guarded = task.guard(name_only, destination="https://mail.example")
        guarded("customer-lookup", {"customer": "c-7"})
        guarded("fetch-page", {"url": "https://example.com/"})
        with pytest.raises(ToolNeedsApproval) as caught:
            guarded("send-email", {"to": ["a@b.example"], "subject": "hello"})
        assert caught.value.approval_id.startswith("apr_")
        assert caught.value.advice
        assert caught.value.advice[0] in str(caught.value)
        assert isinstance(caught.value, ToolDenied)
        assert isinstance(caught.value, ApprovalRequired)


def test_a_tool_waits_for_a_human_and_is_called_then(sdk: Sdk, client: Any) -> None:
    asked: dict[str, Any] = {}

    def said(approval_id: str) -> None:
        asked.update(sdk.approval_of(approval_id)["request"]["arguments"])
        sdk.say(approval_id, yes=True)

    with client.task(*DEPLOYER) as task:

        def deploy(service: str, version: Secret) -> str:
            return f"{service} {version.reveal()}"

        impatient, patient = task.tool("deploy")(deploy), task.tool("deploy", wait="20s")(deploy)
        with pytest.raises(ToolNeedsApproval) as caught:
            impatient("shop", Secret("canary-7"))
        said(caught.value.approval_id)
        assert patient("shop", Secret("canary-7")) == "shop canary-7"
    assert asked == {"service": "shop", "version": "[redacted]"}
    (report,) = sdk.events(task.task_id, "execution")
    assert report["outcome"] == "succeeded"
    assert "canary" not in str(sdk.run(sdk.world.events(task.task_id)))


def test_what_is_asked_about_is_what_the_function_gets(client: Any) -> None:
    with client.task(*TOOLS) as task:
        calls: list[Any] = []

        @task.tool("send-email", without=["mailer"], destination=domain_of)
        def send(mailer: object, to: tuple[str, ...], subject: str = "hi", body: Any = None) -> int:
            calls.append((to, subject, body))
            return len(to)

        assert send(object(), ("a@b.example",)) == 1
        assert send(object(), to=("a@b.example",), body=None) == 1
        assert send(mailer=object(), to=("a@b.example",), body="text") == 1
        assert calls[0] == (("a@b.example",), "hi", None)
        with pytest.raises(TypeError):
            send()
        with pytest.raises(InvalidRequest, match="argument subject: object"):
            send(object(), ("a@b.example",), object())
        with pytest.raises(ToolDenied):
            send(object(), ("a@b.example",), Decimal("1.5"))
        assert len(calls) == 3


def test_arguments_that_change_while_a_human_is_asked_are_not_called_with(
    sdk: Sdk, client: Any
) -> None:
    made: list[Any] = []
    with client.task(*DEPLOYER) as task:
        arguments = {"service": "shop", "version": "7"}

        def dispatch(*call: Any) -> None:
            made.append(call)

        guarded = task.guard(dispatch, wait="20s")
        with pytest.raises(ToolNeedsApproval) as caught:
            task.guard(print)("deploy", arguments)
        sdk.say(caught.value.approval_id, yes=True)

        class Turning(dict[str, Any]):
            looks = 0

            def items(self) -> Any:
                self.looks += 1
                return {**self, "service": "shop" if self.looks == 1 else "bank"}.items()

        with pytest.raises(InvalidRequest) as refused:
            guarded("deploy", Turning(arguments))
        assert refused.value.code == "arguments_changed"
    assert made == []
    (report,) = sdk.events(task.task_id, "execution")
    assert report["outcome"] == "not_executed"


def test_a_guarded_dispatcher_asks_for_each_of_its_tools(sdk: Sdk, client: Any) -> None:
    def dispatch(name: str, arguments: Mapping[str, Any], extra: int = 0) -> str:
        return f"{name} {sorted(arguments)} {extra}"

    with client.task(*TOOLS) as task:
        guarded = task.guard(
            dispatch,
            names={"lookup": "customer-lookup"},
            effects_of={"fetch-page": ["ingests:mailbox"]},
        )
        assert guarded("lookup", {"customer": "c-7"}, extra=3) == "lookup ['customer'] 3"
        assert guarded(name="fetch-page", arguments={"url": "https://a.example/"})
        with pytest.raises(ToolDenied):
            guarded("rm-rf", {})
        with pytest.raises(InvalidRequest):
            guarded("lookup", '{"customer": "c-7"}')
    assert len(sdk.events(task.task_id, "execution")) == 2


def test_a_tool_declared_before_there_is_a_task_is_bound_to_one(client: Any) -> None:
    @tool("customer-lookup")
    def look_up(customer: str) -> str:
        return customer

    with pytest.raises(InvalidRequest) as caught:
        look_up("c-7")
    assert caught.value.code == "tool_not_bound"
    with client.task(*TOOLS) as task:
        assert task.bind(look_up)("c-7") == "c-7"
    with pytest.raises(TaskEnded):
        task.bind(look_up)("c-7")
    with pytest.raises(InvalidRequest, match="yields"):
        tool("customer-lookup")(iter_of)


def iter_of(customer: str) -> Any:
    yield customer


def test_a_tool_is_called_for_its_own_task_in_whatever_thread(sdk: Sdk, client: Any) -> None:
    """Pitfall 32: nothing depends on the thread, or on a context variable that it hasn't."""
    with client.task(*TOOLS) as one, client.task(*TOOLS) as other:
        ready = threading.Barrier(8)

        def look_up(customer: str) -> str:
            return customer

        tools = [one.tool("customer-lookup")(look_up), other.tool("customer-lookup")(look_up)]

        def work(n: int) -> list[str]:
            ready.wait(20)
            return [tools[n % 2](f"c-{n}"), tools[n % 2](f"d-{n}")]

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [[f"c-{n}", f"d-{n}"] for n in range(8)]
    for task in (one, other):
        assert len(sdk.events(task.task_id, "execution")) == 8


def test_one_task_is_used_from_many_threads(client: Any) -> None:
    with client.task("report-writer", "count", ["orders-api"]) as task:
        with ThreadPoolExecutor(8) as pool:
            held = list(pool.map(task.grant, ["orders-api"] * 8))
        assert len({grant.grant_id for grant in held}) == 8
    assert task.end.grants.revoking == 0
    assert task.end.grants.revoked == 8
