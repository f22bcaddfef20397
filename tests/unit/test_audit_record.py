from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import Chain
from broker.audit.errors import HeadUnreadable
from broker.audit.head import GENESIS, Head, Position
from broker.audit.merkle import Tree
from broker.audit.record import (
    advance,
    canonical,
    cloud_event,
    read_record,
    record_hash,
    record_line,
)
from broker.events import Event
from broker.ledger.rows import event_row
from tests.unit.audit_world import ISSUER, event, positions

EVENT = Event(
    id="1800000000123-0a-7",
    at=1_800_000_000_123,
    type="grant.activated",
    task_id="tsk_1",
    grant_id="grt_1",
    principal="report-writer",
    data={"lease": "database/creds/x", "expires_at": 1_800_000_300_000},
    chain="tsk_0",
    decision="dec_1",
    trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
EMPTY = Event("1-00-0", 1, "freeze.set", "", "", "", {})

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("given_event", [EVENT, EMPTY], ids=["full", "empty"])
def test_an_event_is_one_for_an_independent_reader_too(given_event: Event) -> None:
    row = cloud_event(given_event, source=ISSUER)
    message = HTTPMessage(
        headers={"content-type": "application/cloudevents+json"}, body=canonical(row)
    )
    read = from_http_event(message, JSONFormat())
    assert (read.get_id(), read.get_type()) == (row["id"], row["type"])
    assert (read.get_source(), read.get_specversion()) == (ISSUER, "1.0")
    assert (read.get_subject(), read.get_data()) == (row.get("subject"), row["data"])
    time = read.get_time()
    assert time is not None
    assert round(time.timestamp() * 1000) == given_event.at
    for name in ("task", "chain", "grant", "principal", "decision", "traceparent"):
        assert read.get_extension(name) == row.get(name)


def test_attributes_are_named_after_what_they_are() -> None:
    assert cloud_event(EVENT, source=ISSUER) == {
        "specversion": "1.0",
        "id": "1800000000123-0a-7",
        "source": ISSUER,
        "type": "broker.grant.activated",
        "time": "2027-01-15T08:00:00.123Z",
        "subject": "grt_1",
        "datacontenttype": "application/json",
        "task": "tsk_1",
        "chain": "tsk_0",
        "grant": "grt_1",
        "principal": "report-writer",
        "decision": "dec_1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "data": {"lease": "database/creds/x", "expires_at": 1_800_000_300_000},
    }


def test_what_is_empty_is_left_out() -> None:
    assert set(cloud_event(EMPTY, source=ISSUER)) == {
        "specversion", "id", "source", "type", "time", "datacontenttype", "data",
    }  # fmt: skip


def test_the_ledgers_rows_carry_chain_decision_and_trace() -> None:
    row = {b"type": b"x", b"task": b"tsk_1", b"grant": b"", b"principal": b"a", b"data": b"{}"}
    old = event_row(3, b"1800000000000-2", row)
    assert (old.id, old.chain, old.decision, old.trace) == ("1800000000000-03-2", "", "", "")
    new = event_row(3, b"1-0", row | {b"chain": b"tsk_0", b"decision": b"dec_1", b"trace": b"00-x"})
    assert (new.chain, new.decision, new.trace) == ("tsk_0", "dec_1", "00-x")


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_whatever_is_in_an_event_a_record_is_one_line_of_ascii(data: dict[str, Any]) -> None:
    row = event(1) | {"data": data}
    line = record_line(row, seq=0, prev=GENESIS)
    assert line.isascii()
    assert b"\n" not in line
    assert read_record(line)["seq"] == 0
    strict: Any = json.loads(line, parse_constant=pytest.fail)
    assert canonical(strict) == line
    assert Chain(tree=Tree()).take(line + b"\n")


def test_numbers_that_json_has_none_for_are_written_as_text() -> None:
    data = {"a": float("nan"), "b": [float("inf"), {"c": float("-inf")}], "d": 1.5}
    assert json.loads(canonical(data)) == {"a": "nan", "b": ["inf", {"c": "-inf"}], "d": 1.5}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"event":{},"prev":"","seq":0,"more":1}',
        b'{"event":[],"prev":"","seq":0}',
        b'{"event":{},"prev":0,"seq":0}',
        b'{"event":{},"prev":"","seq":"0"}',
        b'{"event":{},"prev":"","seq":true}',
        b'{"event":{},"prev":"","seq":-1}',
        b"\xff",
        b"[" * 100_000,
    ],
    ids=range(12),
)
def test_what_is_no_record_is_not_read_as_one(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(is|has) "):
        read_record(line)


def test_a_chain_takes_nothing_but_the_next_record() -> None:
    chain = Chain(tree=Tree())
    first = record_line(event(0), seq=0, prev=GENESIS)
    second = record_line(event(1), seq=1, prev=record_hash(first))
    for wrong in (second + b"\n", first, first + b" \n", b" " + first + b"\n", b"\n", b""):
        assert not chain.take(wrong)
    assert chain.take(first + b"\n")
    assert not chain.take(first + b"\n")
    assert chain.take(second + b"\n")
    assert chain.size == 2


def test_a_cursor_counts_what_was_drained_of_each_shard() -> None:
    cursor: dict[int, Position] = {}
    for number in range(5):
        advance(cursor, event(number))
    assert cursor == positions(
        s0=("1800000003000-0", 2), s1=("1800000004000-0", 2), s2=("1800000002000-0", 1)
    )
    gap = {"type": "broker.audit.gap", "id": "1-02-gap", "data": {"shard": 2, "missed": 7}}
    advance(cursor, gap)
    advance(cursor, {"type": "broker.audit.gap", "data": {"shard": "2"}})
    advance(cursor, {"type": "broker.x", "id": "of another kind"})
    assert cursor[2] == Position("1800000002000-0", 8)


def test_a_head_comes_back_as_it_was_kept() -> None:
    chain = Chain(tree=Tree())
    for number in range(5):
        chain.add(record_line(event(number), seq=number, prev=chain.prev))
    head = chain.head(positions(s0=("1-0", 3), s63=("2-1", 9)))
    assert Head.from_json(head.to_json()) == head
    assert Head.from_json(head.to_json().encode()) == head
    assert Head.from_json(Head().to_json()) == Head()
    assert chain.is_at(head)
    assert chain.tree is not None
    assert head.root == chain.tree.root()


HEAD = json.loads(Head(1, "a" * 64, ("b" * 64,), positions(s1=("1-0", 1))).to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        json.dumps(HEAD | {"size": 2, "ranges": ["b" * 64, "b" * 64]}),
        json.dumps(HEAD | {"size": -1}),
        json.dumps(HEAD | {"size": "1"}),
        json.dumps(HEAD | {"prev": "A" * 64}),
        json.dumps(HEAD | {"prev": None}),
        json.dumps(HEAD | {"ranges": []}),
        json.dumps(HEAD | {"ranges": [1]}),
        json.dumps(HEAD | {"ranges": "b" * 64}),
        json.dumps(HEAD | {"cursor": []}),
        json.dumps(HEAD | {"cursor": {"x": ["1-0", 1]}}),
        json.dumps(HEAD | {"cursor": {"1": ["1-0"]}}),
        json.dumps(HEAD | {"cursor": {"1": ["$", 1]}}),
        json.dumps(HEAD | {"cursor": {"1": ["1-0", -1]}}),
        json.dumps(HEAD | {"cursor": {"1": [1, 1]}}),
        json.dumps(HEAD | {"more": 1}),
    ],
    ids=range(19),
)
def test_what_is_not_quite_a_head_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(HeadUnreadable):
        Head.from_json(text)
