"""Logging in at a real HTTP provider over loopback, and where the tokens are kept."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx2
import pytest

from broker.client import Client, Unauthenticated
from broker.client.errors import BrokerClientError, InvalidRequest
from broker.client.login import Login, Logins
from broker.client.login_flows import DeviceCode, LoginAt, LoginFlows
from broker.client.login_keyring import Keyring
from broker.secret import Secret
from tests.clocks import ManualClock
from tests.oidc_provider import OidcProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVER = "https://broker.example"


class MemoryKeyring(Keyring):
    """A keyring that is there."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    def missing(self) -> str:
        return ""

    def get(self, server: str) -> str:
        return self.held.get(server, "")

    def set(self, server: str, text: str) -> None:
        self.held[server] = text

    def delete(self, server: str) -> None:
        self.held.pop(server, None)


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with OidcProvider() as found:
        yield found


@pytest.fixture
def at(provider: OidcProvider) -> LoginAt:
    return LoginAt(SERVER, provider.url, provider.client_id, ("openid", "offline_access"))


def browse(url: str) -> None:
    """Be the browser, which comes back while the program waits; or too late."""

    def go() -> None:
        with contextlib.suppress(httpx2.TransportError):
            httpx2.get(url, follow_redirects=True)

    threading.Thread(target=go, daemon=True).start()


def written(login: Login | None) -> str:
    """Secrets aren't compared by accident, so a login isn't either."""
    assert login is not None
    return login.written()


def flows() -> LoginFlows:
    return LoginFlows(sleep=lambda _: None)


def test_by_a_browser_here(provider: OidcProvider, at: LoginAt) -> None:
    login = flows().in_browser(at, browse)
    assert login.server == SERVER
    assert login.refresh_token.reveal() in provider.good
    assert login.expires_at > 0
    first = provider.asked[0]
    assert first["scope"] == "openid offline_access"
    assert len(first["state"]) > 40
    assert login.token.reveal() not in repr(login)


def test_by_a_browser_elsewhere(provider: OidcProvider, at: LoginAt) -> None:
    shown: list[DeviceCode] = []
    pauses: list[float] = []
    login = LoginFlows(sleep=pauses.append).elsewhere(at, shown.append)
    assert shown[0].user_code == "WDJB-MJHT"
    assert pauses == [1, 6, 6]
    assert login.refresh_token.reveal() in provider.good


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "another-client"},
        {"nonce": "replayed"},
        {"exp": 1},
    ],
    ids=["issuer", "audience", "nonce", "expired"],
)
def test_an_id_token_for_another_login_is_refused(
    provider: OidcProvider, at: LoginAt, claims: dict[str, object]
) -> None:
    provider.claims = claims
    with pytest.raises(Unauthenticated, match="isn't for this login"):
        flows().in_browser(at, browse)


def test_an_answer_with_another_state_is_not_taken(provider: OidcProvider, at: LoginAt) -> None:
    provider.redirect = {"state": "forged"}
    with pytest.raises(Unauthenticated, match="in time"):
        flows().in_browser(at, browse, wait_s=0.5)


def test_an_answer_of_another_issuer_is_refused(provider: OidcProvider, at: LoginAt) -> None:
    provider.redirect = {"iss": "https://mixed.example"}
    with pytest.raises(Unauthenticated, match="Another issuer"):
        flows().in_browser(at, browse)
    provider.redirect = {}
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    with pytest.raises(Unauthenticated, match="Another issuer"):
        flows().in_browser(at, browse)


def test_a_refusal_is_told(provider: OidcProvider, at: LoginAt) -> None:
    provider.redirect = {"code": "", "error": "access_denied"}
    with pytest.raises(Unauthenticated, match="access_denied"):
        flows().in_browser(at, browse)


@pytest.mark.parametrize(
    "metadata",
    [{"issuer": "https://other.example"}, {"token_endpoint": "http://issuer.example/token"}],
    ids=["issuer", "plaintext"],
)
def test_metadata_that_leads_elsewhere_is_refused(
    provider: OidcProvider, at: LoginAt, metadata: dict[str, object]
) -> None:
    provider.metadata = metadata
    with pytest.raises((Unauthenticated, InvalidRequest)):
        flows().in_browser(at, browse)
    assert not provider.asked


def test_it_is_renewed_when_it_is_about_to_end(
    provider: OidcProvider, at: LoginAt, tmp_path: Path
) -> None:
    first = flows().in_browser(at, browse)
    clock = ManualClock(first.expires_at - 200)
    logins = Logins(tmp_path, MemoryKeyring(), clock)
    logins.keep(first, "keyring")
    token = logins.current(SERVER, flows().renew)
    assert token is not None
    assert token.reveal() == first.token.reveal()
    clock.advance(170)
    # The next token is of the provider's own time, and lasts.
    provider.lifetime_s = 3600
    renewed = logins.current(SERVER, LoginFlows(clock=clock).renew)
    assert renewed is not None
    assert renewed.reveal() != first.token.reveal()
    assert first.refresh_token.reveal() not in provider.good
    again = logins.get(SERVER)
    assert again is not None
    assert again.refresh_token.reveal() in provider.good
    provider.good.clear()
    clock.advance(again.expires_at - clock.now())
    with pytest.raises(Unauthenticated) as caught:
        logins.current(SERVER, LoginFlows(clock=clock).renew)
    assert caught.value.code == "login_ended"


def test_programs_side_by_side_renew_once(
    provider: OidcProvider, at: LoginAt, tmp_path: Path
) -> None:
    first = flows().in_browser(at, browse)
    logins = Logins(tmp_path, MemoryKeyring())
    logins.keep(replace(first, expires_at=1.0), "keyring")
    found: list[object] = []

    def ask() -> None:
        try:
            found.append(logins.current(SERVER, flows().renew))
        except BrokerClientError as error:
            found.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({str(each and getattr(each, "reveal", str)()) for each in found}) == 1
    assert [f["grant_type"] for f in provider.asked if "grant_type" in f].count(
        "refresh_token"
    ) == 1


LOGIN = Login(
    SERVER, "https://i.example", "c", "https://i.example/t", Secret("jwt-1"), 4e9, Secret("ref-1")
)


def test_in_the_keyring_the_file_holds_no_token(tmp_path: Path) -> None:
    keyring = MemoryKeyring()
    logins = Logins(tmp_path, keyring)
    logins.keep(LOGIN, "keyring")
    assert "jwt-1" not in logins.file.read_text()
    assert written(logins.get(SERVER)) == LOGIN.written()
    assert (logins.servers(), logins.kept(SERVER)) == ([SERVER], "keyring")
    assert logins.forget(SERVER)
    assert (keyring.held, logins.servers()) == ({}, [])
    assert not logins.forget(SERVER)


def test_the_file_is_private_or_not_used(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "broker", MemoryKeyring())
    logins.keep(LOGIN, "file")
    assert logins.file.stat().st_mode & 0o777 == 0o600
    assert logins.file.parent.stat().st_mode & 0o777 == 0o700
    assert written(logins.get(SERVER)) == LOGIN.written()
    logins.file.chmod(0o640)
    with pytest.raises(Unauthenticated, match="chmod 600"):
        logins.get(SERVER)


@pytest.mark.parametrize(
    "text", ["", "[]", "nonsense", '{"https://broker.example": {"login": "x"}}']
)
def test_a_broken_file_is_said_to_be(tmp_path: Path, text: str) -> None:
    logins = Logins(tmp_path, MemoryKeyring())
    logins.file.write_text(text)
    logins.file.chmod(0o600)
    with pytest.raises(Unauthenticated):
        logins.get(SERVER)


def test_a_login_is_for_the_broker_it_was_made_at(tmp_path: Path) -> None:
    logins = Logins(tmp_path, MemoryKeyring())
    logins.keep(LOGIN, "file")
    assert logins.token("https://elsewhere.example") is None
    text = logins.file.read_text().replace(f'"{SERVER}": {{', '"https://elsewhere.example": {')
    logins.file.write_text(text)
    with pytest.raises(Unauthenticated):
        logins.token("https://elsewhere.example")


def test_the_client_takes_the_login_where_nothing_else_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BROKER_IDENTITY_TOKEN_FILE", "BROKER_IDENTITY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    sent: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.content.decode())
        return httpx2.Response(400, json={"error": "invalid_request"})

    seam = httpx2.MockTransport(answer)
    with Client(SERVER, http_transport=seam) as broker, pytest.raises(Unauthenticated) as caught:
        broker.whoami()
    assert caught.value.code == "identity_missing"
    assert "broker login" in caught.value.detail
    Logins().keep(LOGIN, "file")
    with Client(SERVER, http_transport=seam) as broker, pytest.raises(BrokerClientError):
        broker.whoami()
    assert "subject_token=jwt-1" in sent[-1]
    monkeypatch.setenv("BROKER_IDENTITY_TOKEN", "other-jwt")
    with Client(SERVER, http_transport=seam) as broker, pytest.raises(BrokerClientError):
        broker.whoami()
    assert "subject_token=other-jwt" in sent[-1]
