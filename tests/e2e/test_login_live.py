"""A person logs in at a provider, and the broker believes it: `broker serve` on real engines."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import tomllib
from typing import TYPE_CHECKING

import httpx2
import pytest
import tomli_w

from tests.dev.broker_process import PROGRAM, Server, broker, environment
from tests.oidc_provider import OidcProvider
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

pytestmark = pytest.mark.usefixtures("empty_ledger")


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with OidcProvider() as found:
        yield found


@pytest.fixture
def url(engines: tuple[DevStack, Config], provider: OidcProvider, tmp_path: Path) -> Iterator[str]:
    document = tomllib.loads((engines[0].data / "config.toml").read_text("utf-8"))
    listen = f"127.0.0.1:{free_port()}"
    document["broker"] |= {"listen": listen, "state_dir": str(tmp_path / "state")}
    document["identity"]["issuers"].append(
        {
            "name": "staff",
            "issuer": provider.url,
            "audience": provider.client_id,
            "discovery": True,
        }
    )
    document["login"] = {"issuer": "staff"}
    document["principals"].append(
        {
            "name": "alice",
            "role": "operator",
            "owner": "platform@example.com",
            "identity": {"issuer": "staff", "subject": provider.subject},
        }
    )
    config = tmp_path / "config.toml"
    config.write_text(tomli_w.dumps(document), "utf-8")
    with Server(tmp_path / "log", "serve", "--config", config) as server:
        server.wait_ready()
        yield f"http://{listen}"
        server.end(signal.SIGTERM)


def test_a_person_logs_in_acts_and_logs_out(
    url: str, provider: OidcProvider, tmp_path: Path
) -> None:
    env = {"BROKER_URL": url, "XDG_CONFIG_HOME": str(tmp_path / "home")}
    ran = broker("whoami", **env)
    assert ran.code == 4
    assert "broker login" in ran.err

    command = [PROGRAM, "login", "--no-browser", "--keep", "file"]
    with subprocess.Popen(
        command, env=environment(**env), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as login:
        assert login.stderr is not None
        assert "Open this" in login.stderr.readline()
        page = httpx2.get(login.stderr.readline().strip(), follow_redirects=True)
        out, err = login.communicate(timeout=60)
    assert page.status_code == 200
    assert login.returncode == 0, err
    assert f"Logged in at {url}" in out
    assert not re.search(r"eyJ[\w-]+\.", out + err), "no token is ever printed"

    me = broker("whoami", "--json", **env).json
    assert (me["principal"], me["role"], me["identity"]) == (
        "alice",
        "operator",
        "login, kept in a file",
    )
    assert broker("top", "--json", **env).json["live"]["total"] == 0

    # A token of the same issuer for another client is nobody's login here.
    file = tmp_path / "home" / "broker" / "logins.json"
    rows = json.loads(file.read_text())
    row = json.loads(rows[url]["login"])
    forged = provider.key.sign({**_claims(row["token"]), "aud": "another-client"})
    rows[url]["login"] = json.dumps({**row, "token": forged})
    kept = file.read_text()
    file.write_text(json.dumps(rows))
    assert broker("whoami", **env).code == 4
    file.write_text(kept)

    ran = broker("logout", "--json", **env)
    assert ran.json["items"] == [{"server": url, "was_logged_in": True, "issuer_told": True}]
    assert provider.good == set()
    assert broker("whoami", **env).code == 4


def _claims(token: str) -> dict[str, object]:
    text = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
