"""What a sender is told about its DPoP proof: RFC 9449 sections 5, 7.1 and 8."""

from __future__ import annotations

import json

import pytest

from broker.errors import InvalidDpopProof, UseDpopNonce
from broker.http.problems import oauth_problem, problem
from broker.identity.dpop import ALGORITHMS

NONCE = "eyJ7S_zG.eyJH0-Z"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidDpopProof("why"), "invalid_dpop_proof"),
        (UseDpopNonce("why", nonce=NONCE), "use_dpop_nonce"),
    ],
    ids=["proof", "nonce"],
)
def test_the_token_endpoint_and_the_api_say_it_in_their_own_form(
    error: InvalidDpopProof, code: str
) -> None:
    oauth, api = oauth_problem(error), problem(error)

    assert oauth.status_code == 400
    assert json.loads(bytes(oauth.body)) == {"error": code, "error_description": "why"}
    assert "www-authenticate" not in oauth.headers
    assert api.status_code == 401
    assert json.loads(bytes(api.body))["code"] == code
    algorithms = " ".join(ALGORITHMS)
    assert api.headers["www-authenticate"] == f'DPoP error="{code}", algs="{algorithms}"'
    for answer in (oauth, api):
        assert answer.headers["cache-control"] == "no-store"
        wanted = NONCE if code == "use_dpop_nonce" else None
        assert answer.headers.get("dpop-nonce") == wanted
        assert NONCE not in bytes(answer.body).decode()
