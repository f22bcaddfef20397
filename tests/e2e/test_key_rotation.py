"""Two `broker serve` on one folder of keys: rotated by the scheduler and by an operator, live."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from broker.keys import Algorithm
from broker.keys.folder import KeyFolder
from broker.keys.key import generate, signing_key
from tests.dev.broker_process import Server, broker, eventually
from tests.e2e.test_cli_live import address, config_of
from tests.world import EXCHANGE, JWT, SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

pytestmark = pytest.mark.usefixtures("empty_ledger")

OLD_S = 31 * 86_400


class Replica:
    """One process, asked over HTTP."""

    def __init__(self, url: str, config: Config, identity: str) -> None:
        self.http = httpx2.Client(base_url=url)
        self.url = url
        self.form = {
            "grant_type": EXCHANGE,
            "subject_token": identity,
            "subject_token_type": JWT,
            "resource": config.broker.issuer,
        }

    @property
    def published(self) -> list[str]:
        return [key["kid"] for key in self.http.get("/.well-known/jwks.json").json()["keys"]]

    def token(self) -> str:
        return self.http.post("/oauth/token", data=self.form).json()["access_token"]

    def accepts(self, token: str) -> bool:
        bearer = {"Authorization": f"Bearer {token}"}
        return self.http.get("/v1/freezes", headers=bearer).status_code == 200


@contextmanager
def served(stack: DevStack, config: Config, folder: Path, state: Path) -> Generator[Replica]:
    folder.mkdir()
    file = config_of(stack, folder, broker={"state_dir": str(state)})
    identity = stack.issuer.token(SUBJECTS["operator"]).reveal()
    with Server(folder / "log", "serve", "--config", file) as server:
        server.wait_ready()
        replica = Replica(address(file), config, identity)
        with replica.http:
            yield replica


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose one key has signed for longer than the default."""
    folder = KeyFolder(tmp_path / "state" / "keys")
    folder.prepare()
    made = int(time.time()) - OLD_S
    key = generate(Algorithm.ES256)
    folder.write(signing_key(key, number=1, created=made, signs_from=made))
    return tmp_path / "state"


@pytest.fixture
def replicas(
    engines: tuple[DevStack, Config], state: Path, tmp_path: Path
) -> Iterator[tuple[Replica, Replica]]:
    stack, config = engines
    with (
        served(stack, config, tmp_path / "one", state) as one,
        served(stack, config, tmp_path / "two", state) as two,
    ):
        yield one, two


def test_keys_rotate_while_two_replicas_serve(
    replicas: tuple[Replica, Replica], engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    one, two = replicas
    (tmp_path / "operator").write_text(one.form["subject_token"])

    def keys(*arguments: str) -> Any:
        identity = str(tmp_path / "operator")
        env = {"BROKER_URL": one.url, "BROKER_IDENTITY_TOKEN_FILE": identity}
        ran = broker("keys", *arguments, "--json", **env)
        assert ran.code == 0, ran.err
        return ran.json

    # The scheduler: one of the two makes the next key, both publish it, neither signs with it.
    first = one.published[0]
    eventually(lambda: len(one.published) == len(two.published) == 2, "the next key is published")
    assert one.published == two.published
    listed = keys("list")["items"]
    assert [(key["kid"], key["state"]) for key in listed] == [
        (one.published[1], "next"),
        (first, "signing"),
    ]
    token = two.token()
    assert one.accepts(token)

    # An operator: the other replica follows, and what was signed before is dead there too.
    made = keys("rotate", "--now", "--reason", "drill", "--yes")
    assert sorted(made["removed"]) == sorted(key["kid"] for key in listed)
    assert one.published == [made["kid"]]
    assert not one.accepts(token)
    eventually(lambda: not two.accepts(token), "the old token is dead at the other replica")
    assert two.published == [made["kid"]]
    assert one.accepts(two.token())
    assert two.accepts(one.token())
