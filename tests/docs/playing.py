"""Requests that a page shows, played at real servers in their order."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import httpx2

    from tests.http.consenting import ConsentWorld


def played(page: str) -> list[str]:
    """Return the requests of a page's text, as they are written there."""
    return re.findall(r"(?ms)^```http\n(.*?)^```", page)


class Play:
    """The requests of the page, and the ids that their answers gave."""

    def __init__(self, world: ConsentWorld) -> None:
        self.world = world
        self.known: dict[str, str] = {}
        self.task: dict[str, Any] = {}
        self.credentials: list[dict[str, Any]] = []
        self.broken = False

    async def request(self, written: str) -> None:
        """Play one of them, and compare what the page says of its answer."""
        head, _, rest = written.partition("\n")
        who, method, path = self.filled(head).split()
        sent, _, said = rest.partition("→ ")
        status, _, expected = said.strip().partition(" ")
        body = json.loads(self.filled(sent)) if sent.strip() else None
        answer = await self._call(who, method, path, body)
        assert answer.status_code == int(status), f"{head}: {answer.text}"
        assert_holds(json.loads(expected), answer.json())
        self.remember(answer.json())

    async def _call(self, who: str, method: str, path: str, body: Any) -> httpx2.Response:
        self.broken = self.broken or path.endswith("/break-glass")
        if who == "agent" and self.broken:
            return await self.world.bound(self.task, method, path, body)
        name = "report-writer" if who == "agent" else who
        task = self.task if who == "agent" else None
        return await self.world.api(name, method, path, body, task=task)

    def filled(self, text: str) -> str:
        return re.sub(r"\$([A-Z]+)", lambda found: self.known[found[1]], text)

    def remember(self, answer: dict[str, Any]) -> None:
        if not self.task:
            self.task = answer
        asked = answer.get("context", {}).get("access_request", {}).get("id")
        names = {
            "TASK": answer.get("task_id"),
            "APPROVAL": asked or answer.get("approval_id"),
            "ELEVATION": answer.get("elevation_id"),
            "GRANT": answer.get("grant_id") if "credential" in answer else None,
            "TOKEN": answer.get("credential", {}).get("token"),
        }
        self.known |= {name: str(value) for name, value in names.items() if value}
        if "credential" in answer:
            self.credentials.append(answer["credential"])


def assert_holds(expected: Any, found: Any) -> None:
    """What is expected is in what was found; more may be."""
    if isinstance(expected, dict):
        for name, value in cast("dict[str, Any]", expected).items():
            assert_holds(value, found[name])
    elif isinstance(expected, list):
        for one, other in zip(cast("list[Any]", expected), found, strict=False):
            assert_holds(one, other)
        assert len(cast("list[Any]", expected)) <= len(found)
    else:
        assert found == expected
