"""Every family of hostile tokens against everything that verifies one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import jwt.algorithms
import pytest

from tests.hostile import algorithms, claims, encodings, headers, signatures
from tests.hostile.vectors import BY_ID, FORM, OWN_KEY, SIGNATURE
from tests.hostile.verifiers import NOW, VERIFIERS, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.hostile.vectors import Vector

MAX_CHECKS: Final = 2
"""As many as there are keys; each is tried with one algorithm at most."""
MAX_REQUESTS: Final = 2
"""The keys once, and once more because the issuer may have rotated: for all vectors together."""

FAMILIES: Final[dict[str, Callable[[Verifier], Iterator[Vector]]]] = {
    "unsigned": lambda v: algorithms.unsigned(v.good),
    "shared-secret": lambda v: algorithms.shared_secret(v.good),
    "algorithm-not-accepted": lambda v: algorithms.not_accepted(v.good),
    "algorithm-of-another-key": lambda v: algorithms.of_another_key(v.good),
    "signature-altered": lambda v: signatures.altered(v.good),
    "signature-swapped": lambda v: signatures.swapped(v.good),
    "signature-ecdsa": lambda v: signatures.ecdsa(v.good),
    "signature-rsa": lambda v: signatures.rsa(v.good),
    "header-extensions": lambda v: headers.extensions(v.good),
    "header-keys": lambda v: headers.keys_brought_along(v.good),
    "header-ignored": lambda v: headers.ignored(v.good),
    "header-kid": lambda v: headers.key_ids(v.good),
    "header-typ": lambda v: headers.types(v.good, v.types),
    "base64url": lambda v: encodings.base64url(v.good),
    "segments": lambda v: encodings.segments(v.good),
    "json": lambda v: encodings.json_texts(v.good),
    "size": lambda v: encodings.sizes(v.good),
    "claims-missing": lambda v: claims.missing(v.good, v.shape),
    "claims-texts": lambda v: claims.texts(v.good, v.shape),
    "claims-audience": lambda v: claims.audience(v.good, v.shape),
    "claims-dates": lambda v: claims.dates(v.good, v.shape, NOW),
    "claims-others": lambda v: claims.others(v.good, v.shape),
}

ELSEWHERE: Final = {
    ("reviewed", "algorithm-of-another-key"): "signatures are checked by the API server",
    ("reviewed", "signature-altered"): "so",
    ("reviewed", "signature-ecdsa"): "so",
    ("reviewed", "signature-rsa"): "so",
    ("proof", "claims-audience"): "a proof has htu in its place",
}
PAIRS: Final = [
    pytest.param(name, family, id=f"{name}-{family}")
    for name in VERIFIERS
    for family in FAMILIES
    if (name, family) not in ELSEWHERE
]


@dataclass
class Checks:
    """Counts the signatures that PyJWT, under all verifiers, is asked to check."""

    made: int = 0
    patch: pytest.MonkeyPatch = field(default_factory=pytest.MonkeyPatch)

    def count(self, kind: type[Any]) -> None:
        real = kind.verify

        def verify(itself: object, *arguments: object) -> bool:
            self.made += 1
            return real(itself, *arguments)

        self.patch.setattr(kind, "verify", verify)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    found = Checks(patch=monkeypatch)
    library = jwt.algorithms
    for kind in (library.RSAAlgorithm, library.ECAlgorithm, library.OKPAlgorithm):
        found.count(kind)
    # A subclass with a method of its own.
    found.count(library.RSAPSSAlgorithm)
    return found


def expectation(verifier: Verifier, vector: Vector) -> bool | None:
    """Whether the verifier has to accept a vector; None if either will do."""
    if BY_ID in vector.flags and not verifier.by_id:
        return True
    return vector.valid


def applies(verifier: Verifier, vector: Vector) -> bool:
    if OWN_KEY in vector.flags and verifier.own_key:
        return False
    return SIGNATURE not in vector.flags or verifier.signatures


async def outcome(verifier: Verifier, token: str) -> tuple[bool | None, str]:
    """Whether a token is accepted, and what is said of it; None if something else happened."""
    try:
        await verifier.verify(token)
    except verifier.refusal as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001  whatever it is, it is wrong
        return None, f"{type(error).__name__}: {error}"
    return True, ""


@pytest.mark.parametrize("name", VERIFIERS)
async def test_the_good_tokens_are_accepted(name: str) -> None:
    verifier = VERIFIERS[name]()

    assert await verifier.verify(verifier.good.token)
    if verifier.good.rsa is not None:
        assert await verifier.verify(verifier.good.rsa.token)


@pytest.mark.parametrize(("name", "family"), PAIRS)
async def test_family(name: str, family: str, checks: Checks) -> None:
    verifier = VERIFIERS[name]()
    seen: set[str] = set()
    wrong: list[str] = []

    def complain(vector: Vector, what: str) -> None:
        wrong.append(f"{vector.id} ({vector.comment}): {what}")

    for vector in FAMILIES[family](verifier):
        if not applies(verifier, vector):
            continue
        assert vector.id not in seen
        seen.add(vector.id)
        checks.made, asked = 0, verifier.requests()
        accepted, said = await outcome(verifier, vector.token)
        expected = expectation(verifier, vector)
        if accepted is None or (expected is not None and accepted != expected):
            complain(vector, said or "accepted")
        if checks.made > (0 if FORM in vector.flags else MAX_CHECKS):
            complain(vector, f"{checks.made} signature checks")
        if FORM in vector.flags and verifier.requests() != asked:
            complain(vector, "somebody was asked about it")
        if vector.token in said and len(vector.token) > 20:
            complain(vector, "the refusal repeats it")
        if len(said) > 300:
            complain(vector, f"the refusal is long: {said[:100]}")

    assert seen
    assert not wrong, "\n".join([f"{len(wrong)} are wrong:", *wrong])
    if verifier.signatures:
        assert verifier.requests() <= MAX_REQUESTS
