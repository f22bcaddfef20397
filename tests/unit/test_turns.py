"""Who waits comes in by turns, however many others wait; and nobody is lost or let in twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterable


class Crowd:
    """Callers of a gate, and who of them is inside, in the order in which they came in."""

    def __init__(self, width: int) -> None:
        self.turns = Turns(width)
        self.entered: list[str] = []
        self.inside: list[asyncio.Event] = []
        self.jobs: list[asyncio.Task[None]] = []

    async def come(self, names: Iterable[str]) -> None:
        self.jobs += [asyncio.create_task(self._call(name)) for name in names]
        await self.settle()

    async def leave(self) -> None:
        self.inside.pop(0).set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(4):  # rounds of the loop: to be let in, to notice, to leave
            await asyncio.sleep(0)

    async def _call(self, name: str) -> None:
        async with self.turns.of(name):
            self.entered.append(name)
            out = asyncio.Event()
            self.inside.append(out)
            try:
                await out.wait()
            finally:
                if out in self.inside:
                    self.inside.remove(out)


async def test_8_one_grant_of_a_task_is_not_behind_five_thousand_of_another() -> None:
    crowd = Crowd(2)
    await crowd.come(["mass"] * 5000 + ["one", "few", "few"])
    for _ in range(6):
        await crowd.leave()

    assert crowd.entered == ["mass", "mass", "mass", "one", "few", "mass", "few", "mass"]
    for job in crowd.jobs:
        job.cancel()
    await asyncio.gather(*crowd.jobs, return_exceptions=True)


async def test_no_more_than_its_width_are_inside_and_a_free_place_is_taken_at_once() -> None:
    crowd = Crowd(2)
    await crowd.come(["a", "a", "b"])
    assert (len(crowd.inside), crowd.turns.waiting) == (2, 1)
    for _ in range(3):
        await crowd.leave()
    await crowd.come(["c", "c", "c"])
    assert (len(crowd.inside), crowd.turns.waiting) == (2, 1)
    for _ in range(3):
        await crowd.leave()


async def test_one_that_is_called_off_as_its_turn_comes_gives_it_on() -> None:
    crowd = Crowd(1)
    async with crowd.turns.of("a"):
        await crowd.come(["b", "c"])
    crowd.jobs[0].cancel()  # it has been let in by now, and doesn't know yet
    await crowd.settle()

    assert crowd.entered == ["c"]
    await crowd.leave()
    assert not crowd.inside


ACTIONS = st.one_of(
    st.sampled_from("abc"), st.just("leave"), st.tuples(st.just("cancel"), st.integers(0, 30))
)


@given(st.integers(1, 3), st.lists(ACTIONS, max_size=40))
def test_whatever_comes_goes_or_is_called_off_the_gate_is_full_or_nobody_waits(
    width: int, actions: list[str | tuple[str, int]]
) -> None:
    async def run() -> None:
        crowd = Crowd(width)
        for action in actions:
            match action:
                case ("cancel", int(at)) if at < len(crowd.jobs):
                    crowd.jobs[at].cancel()
                    await crowd.settle()
                case "leave" if crowd.inside:
                    await crowd.leave()
                case "a" | "b" | "c":
                    await crowd.come([action])
                case _:
                    continue
            assert len(crowd.inside) <= width
            assert len(crowd.inside) == width or crowd.turns.waiting == 0
        while crowd.inside:
            await crowd.leave()
        assert all(job.done() for job in crowd.jobs)

    asyncio.run(run())


async def test_the_body_s_error_frees_the_place() -> None:
    turns = Turns(1)
    with pytest.raises(ValueError, match="inside"):
        async with turns.of("a"):
            raise ValueError("inside")
    async with turns.of("a"):
        assert turns.waiting == 0
