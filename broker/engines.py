"""What is known of Vault's secrets engines: one row for each kind of credential they give.

A row says how it is asked for, which parameters it takes, which members of the answer are no
secrets, and how it ends. Nothing else in the broker knows an engine by name: to add one is to add a
row here, and a page in ``docs/backends``. Sources: the HTTP API pages of HashiCorp Vault and
OpenBao of each engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, cast

from broker.catalog import Capability, Revocability
from broker.certificates import csr_faults, ssh_end, ssh_key_faults, x509_end

if TYPE_CHECKING:
    from collections.abc import Sequence


class Shape(StrEnum):
    """What a credential is made of."""

    ACCOUNT = "account"
    """A user name and a password."""
    TOKEN = "token"
    """A bearer token."""
    CERTIFICATE = "certificate"
    """A certificate, maybe with its key."""
    KEY_PAIR = "key_pair"
    """The id of a key and the key."""
    STATIC = "static"
    """A secret that is not made for anybody: it was there before, and stays."""


class Proof(StrEnum):
    """By what is known that a credential is dead."""

    LEASE = "lease_lookup"
    """Its lease in Vault is gone."""
    CRL = "crl"
    """Its lease is, and its serial number is in the CA's revocation list."""
    KRL = "krl"
    """It has none: its serial number is in the OpenSSH revocation list that the broker keeps."""


Check = Callable[[str], bool]
"""Whether a parameter's text may be sent."""


def _matches(regex: str) -> Check:
    return lambda text: re.fullmatch(regex, text) is not None


# Wide enough for what the engines' roles are there to narrow; nothing in them is a control
# character, and nothing is parsed as another parameter.
_HOST: Final = _matches(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
_NAME: Final = _matches(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}")
_NAMESPACE: Final = _matches(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123 label
_ADDRESS: Final = _matches(r"[0-9A-Fa-f.:]{2,45}")
_URI: Final = _matches(r"[A-Za-z][A-Za-z0-9+.-]*:[!-+\--~]{1,512}")  # a comma would make it two
_CSR: Final = _matches(
    r"-----BEGIN (NEW )?CERTIFICATE REQUEST-----[A-Za-z0-9+/=\s]{1,16384}"
    r"-----END (NEW )?CERTIFICATE REQUEST-----\s*"
)
_SSH_KEY: Final = _matches(
    r"(ssh-(rsa|ed25519)|ecdsa-sha2-nistp[0-9]{3}|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
    r" [A-Za-z0-9+/]{32,2048}={0,2}( [ -~]{0,256})?\n?"
)
_ARN: Final = _matches(r"arn:[a-z0-9-]+:iam::[0-9]{12}:role/[!-~]{1,512}")


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of credential of one engine.

    ``path`` is matched against what follows the mount. ``writes`` asks by POST, which the
    capability's policy in Vault must allow. ``parameters`` are those an agent may give, by name,
    ``many`` those that may be lists, ``required`` those it must (if the capability doesn't);
    ``timed`` sends the grant's own time as ``ttl``, but no less than ``least_s``: the target gives
    nothing shorter, so what can't be revoked outlives its grant until then. ``public`` are the
    members of the answer that are no secrets, ``account`` the one that the target knows the
    credential by, ``session`` those that only what can't be revoked has. ``inside`` is where in the
    answer the members are, ``lifetime`` the one that says in seconds how long it lives, where no
    lease does; ``end`` reads the answer for when it ends, in epoch seconds. ``judge`` looks at
    parameters of the right form once more, together. ``proof`` is how the broker knows that it is
    dead.
    """

    name: str
    path: str
    shape: Shape
    writes: bool = False
    parameters: Mapping[str, Check] = field(default_factory=dict[str, Check])
    many: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    timed: bool = False
    least_s: int = 0
    public: frozenset[str] = frozenset()
    account: str = ""
    session: frozenset[str] = frozenset()
    inside: str = ""
    leased: bool = True
    lifetime: str = ""
    end: Callable[[Mapping[str, Any]], float] | None = None
    judge: Callable[[Mapping[str, Any]], list[tuple[str, str]]] | None = None
    proof: Proof = Proof.LEASE
    revocability: Revocability = Revocability.INSTANT

    def doubt(self, claimed: Revocability) -> str:
        """Return why what a capability claims may be better than the truth; nothing if it isn't."""
        order = list(Revocability)
        if order.index(claimed) >= order.index(self.revocability):
            return ""
        truth = f"what the engine {self.name!r} gives there is {self.revocability}"
        return f"claims to be {claimed}, and {truth}, unless its role says otherwise"

    def faults(
        self, capability: Capability, asked: Mapping[str, Any], *, complete: bool = True
    ) -> list[tuple[str, str]]:
        """Return what is wrong with parameters: pairs of a name and why; nothing is asked of Vault.

        With ``complete`` off those that are missing may still come.
        """
        found: list[tuple[str, str]] = []
        for name, value in asked.items():
            if name not in self.parameters:
                known = ", ".join(sorted(self.parameters)) or "none"
                found.append((name, f"is not a parameter; there are: {known}"))
            elif name in capability.parameters and complete:
                found.append((name, "is set by the capability and can't be asked for"))
            elif not self._fits(name, value):
                found.append((name, "isn't of the form that it must have"))
        if complete:
            missing = self.required - asked.keys() - capability.parameters.keys()
            found += [(name, "is needed") for name in sorted(missing)]
            if not found and self.judge is not None:
                found = self.judge({**asked, **capability.parameters})
        return found

    def misfit(self, said: Revocability | None, *, has_krl: bool) -> tuple[str, str] | None:
        """Return what can't be said of how its credentials end, and what to write instead."""
        if has_krl and self.proof is not Proof.KRL:
            return "krl_file: has no use here", "remove it: it goes with paths of engine ssh"
        if said is not None and not (self.leased or has_krl) and self.doubt(said):
            lacks = "krl_file" if self.proof is Proof.KRL else "a lease"  # no role gives one
            why = f"revocability: without {lacks} it can't be {said}"
            return why, f'write "{self.revocability}"'
        return None

    def _fits(self, name: str, value: object) -> bool:
        """Whether each text of a value is of its parameter's form."""
        if isinstance(value, list) and name in self.many:
            texts = cast("list[object]", value)
            return 0 < len(texts) <= 64 and all(self._fits(name, text) for text in texts)  # noqa: PLR2004
        return isinstance(value, str) and self.parameters[name](value)

    def body(self, capability: Capability, asked: Mapping[str, Any], ttl_s: int) -> dict[str, str]:
        """Return what is sent to Vault; lists as Vault has them, in one text."""
        given = {**asked, **capability.parameters}
        texts = {
            name: ",".join(map(str, cast("list[object]", v))) if isinstance(v, list) else str(v)
            for name, v in given.items()
        }
        return {**texts, "ttl": f"{max(ttl_s, self.least_s)}s"} if self.timed else texts


_SESSION: Final = frozenset({"session_token", "security_token"})
GENERIC: Final = Engine(
    "",
    r".+",
    Shape.ACCOUNT,
    public=frozenset({"username", "ttl", "serial_number", "expiration"}),
    account="username",
    session=_SESSION,
)
"""Whatever is read with a lease, of an engine that isn't known."""

_ACCOUNT: Final = frozenset({"username"})
_KEY: Final = frozenset({"access_key", "arn"})
_CERTIFICATE: Final = frozenset(
    {
        "certificate",
        "issuing_ca",
        "ca_chain",
        "serial_number",
        "expiration",
        "not_before",
        "private_key_type",
    }
)
_NAMES: Final[Mapping[str, Check]] = {
    "common_name": _HOST,
    "alt_names": _HOST,
    "ip_sans": _ADDRESS,
    "uri_sans": _URI,
}
_LISTS: Final = frozenset({"alt_names", "ip_sans", "uri_sans", "valid_principals"})
_T: Final = Revocability.TTL_ONLY

ENGINES: Final[Sequence[Engine]] = (
    Engine("database", r"creds/[^/]+", Shape.ACCOUNT, public=_ACCOUNT, account="username"),
    Engine("rabbitmq", r"creds/[^/]+", Shape.ACCOUNT, public=_ACCOUNT, account="username"),
    Engine(
        "ldap",
        r"creds/.+",
        Shape.ACCOUNT,
        public=_ACCOUNT | {"distinguished_names"},
        account="username",
    ),
    Engine(
        "pki",
        r"(issuer/[^/]+/)?issue/[^/]+",
        Shape.CERTIFICATE,
        writes=True,
        parameters=_NAMES,
        many=_LISTS,
        required=frozenset({"common_name"}),
        timed=True,
        public=_CERTIFICATE,
        account="serial_number",
        end=x509_end,
        proof=Proof.CRL,
    ),
    Engine(
        "pki",
        r"(issuer/[^/]+/)?sign/[^/]+",
        Shape.CERTIFICATE,
        writes=True,
        parameters={**_NAMES, "csr": _CSR},
        many=_LISTS,
        required=frozenset({"common_name", "csr"}),
        timed=True,
        public=_CERTIFICATE,
        account="serial_number",
        end=x509_end,
        judge=csr_faults,
        proof=Proof.CRL,
    ),
    Engine(
        "ssh",
        r"sign/[^/]+",
        Shape.CERTIFICATE,
        writes=True,
        parameters={"public_key": _SSH_KEY, "valid_principals": _NAME},
        many=_LISTS,
        required=frozenset({"public_key"}),
        timed=True,
        public=frozenset({"serial_number", "signed_key", "issuer_id"}),
        account="serial_number",
        leased=False,
        end=ssh_end,
        judge=ssh_key_faults,
        proof=Proof.KRL,
        revocability=_T,
    ),
    Engine(
        "kubernetes",
        r"creds/[^/]+",
        Shape.TOKEN,
        writes=True,
        parameters={"kubernetes_namespace": _NAMESPACE},
        required=frozenset({"kubernetes_namespace"}),
        timed=True,
        least_s=600,
        public=frozenset({"service_account_name", "service_account_namespace"}),
        account="service_account_name",
        revocability=_T,
    ),
    Engine(
        "kv",
        r"data/.+",
        Shape.STATIC,
        inside="data",
        leased=False,
        revocability=Revocability.NEVER,
    ),
    Engine(
        "aws",
        r"creds/[^/]+",
        Shape.KEY_PAIR,
        public=_KEY,
        account="access_key",
        session=_SESSION,
    ),
    Engine(
        "aws",
        r"sts/[^/]+",
        Shape.KEY_PAIR,
        writes=True,
        parameters={"role_arn": _ARN, "role_session_name": _NAME},
        timed=True,
        least_s=900,
        public=_KEY,
        account="access_key",
        revocability=_T,
    ),
    Engine(
        "gcp",
        r"(roleset|static-account|impersonated-account)/[^/]+/token",
        Shape.TOKEN,
        public=frozenset({"expires_at_seconds", "token_ttl"}),
        least_s=3600,
        leased=False,
        lifetime="token_ttl",
        revocability=_T,
    ),
    Engine(
        "gcp",
        r"(roleset|static-account)/[^/]+/key",
        Shape.KEY_PAIR,
        writes=True,
        timed=True,
        public=frozenset({"key_algorithm", "key_type"}),
    ),
    Engine(
        "azure",
        r"creds/[^/]+",
        Shape.KEY_PAIR,
        public=frozenset({"client_id"}),
        account="client_id",
    ),
)
NAMES: Final = tuple(dict.fromkeys(engine.name for engine in ENGINES))


def engine_of(path: str, name: str = "") -> Engine | None:
    """Return the row for a credential's path, by the engine's name or that of its mount.

    None when the engine is known and gives nothing at such a path.
    """
    parts = path.split("/")
    name = name or (parts[0] if parts[0] in NAMES else "")
    if not name:
        return GENERIC
    rows = (engine for engine in ENGINES if engine.name == name)
    return next((engine for engine in rows if mount_of(path, engine)), None)


def revocability_of(path: str, name: str = "", *, has_krl: bool = False) -> Revocability:
    """Return whether what a path gives can be revoked, where a capability doesn't say it."""
    engine = engine_of(path, name)
    return engine.revocability if engine and not has_krl else Revocability.INSTANT


def mount_of(path: str, engine: Engine) -> str:
    """Return the mount in a credential's path; empty when the row's engine gives nothing there."""
    # A mount's own path may have slashes in it: what follows any of them may be the kind's.
    for n, mark in enumerate(path):
        if mark == "/" and re.fullmatch(engine.path, path[n + 1 :]):
            return path[:n]
    return ""
