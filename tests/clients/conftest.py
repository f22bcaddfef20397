"""A broker on a loopback port, whose issuer is that very address, for clients nobody here wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.http.front_door import FrontDoor, front_door
from tests.http.served import Served

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack


class Doorway(Served):
    """A front door that is served."""

    def __init__(self, stack: DevStack, folder: Path, algorithm: str) -> None:
        """Sign by ``algorithm``, with keys of its own below ``folder``."""
        super().__init__(lambda: self._made(stack, folder, algorithm))
        self.clean()

    def _made(self, stack: DevStack, folder: Path, algorithm: str) -> FrontDoor:
        state = {"state_dir": str(folder / "state"), "signing_algorithm": algorithm}
        return front_door(stack, folder, broker={"issuer": self.url, **state})

    @property
    def door(self) -> FrontDoor:
        """What tests do to the broker that no client does."""
        assert isinstance(self.world, FrontDoor)
        return self.world

    def open_task(self, agent: str = "report-writer", **fields: Any) -> dict[str, Any]:
        """A new task that may have all there is, unless ``fields`` say less."""
        return self.run(self.door.task_of(agent, **fields))

    def state_of(self, grant_id: str) -> str:
        """A grant's state, to an operator."""
        return self.run(self.door.show_grant(grant_id))["state"]


@pytest.fixture(scope="module", params=["ES256"])
def doorway(
    request: pytest.FixtureRequest,
    engines: tuple[DevStack, Config],
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Doorway]:
    """A broker that signs by the algorithm a module asks for."""
    served = Doorway(engines[0], tmp_path_factory.mktemp("doorway"), request.param)
    yield served
    served.close()
