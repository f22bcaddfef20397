"""What a Vault must hold for the broker, written from the files in ``deploy/vault``."""

from __future__ import annotations

import contextlib
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.backends.vault import NAME
from broker.backends.vault_answers import engine_at
from broker.durations import format_duration
from broker.engines import Proof, mount_of
from broker.errors import BackendRefused
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.resources.abc import Traversable

    from broker.backends.vault_api import VaultApi
    from broker.catalog import Capability

POLICY: Final = "broker"
APPROLE: Final = "broker"


def template(name: str) -> str:
    """Return one of the files of ``deploy/vault``; a wheel carries them inside the package."""
    inside: Traversable = resources.files("broker") / "deploy" / "vault" / name
    beside = Path(__file__).parents[2] / "deploy" / "vault" / name
    return (inside if inside.is_file() else beside).read_text("utf-8")


def broker_policy(paths: Iterable[str], rotations: Iterable[str] = ()) -> str:
    """Return the broker's own policy, for these credential paths and rotations and no others."""
    unique = sorted(set(paths))
    listings = "\n".join(
        f'path "sys/leases/lookup/{path}{slash}" {{\n  capabilities = ["list", "sudo"]\n}}'
        for path in unique
        for slash in ("", "/")
    )
    # An empty list would allow any lease there is; no lease is called this.
    leases = ", ".join(f'"{path}/*"' for path in unique) or '"none"'
    policy = template("broker.hcl").replace("LEASES", leases).replace("LISTINGS", listings)
    rotation = template("rotation.hcl")
    return policy + "".join(rotation.replace("PATH", path) for path in sorted(set(rotations)))


class Bootstrap:
    """Writes policies and roles as a Vault admin. Running it again changes nothing more."""

    def __init__(
        self, admin: VaultApi, *, token_role: str, policy_prefix: str, max_ttl_ms: int
    ) -> None:
        """``admin`` is logged in with a token that may write policies and roles."""
        self._admin = admin
        self._role = token_role
        self._prefix = policy_prefix
        self._max_ttl_ms = max_ttl_ms

    async def policies(
        self, capabilities: Iterable[Capability], *, on_progress: Callable[[str], None]
    ) -> None:
        """Write the policies and the token role."""
        ours = [c for c in capabilities if c.backend == NAME]
        for capability in ours:
            name = f"{self._prefix}{capability.name}"
            right = "update" if engine_at(capability.path, capability.engine).writes else "read"
            text = template("capability.hcl").replace("PATH", capability.path)
            await self._policy(name, text.replace('"RIGHT"', f'"{right}"'))
            on_progress(f"policy {name}: {right} {capability.path}")
            await self._look_for_leases(capability, on_progress)
        rotations = {c.rotate for c in ours if c.rotate}
        text = broker_policy((c.path for c in ours), rotations)
        await self._policy(POLICY, text.replace("broker-task", self._role))
        on_progress(f"policy {POLICY}: the broker's own, which can't read a secret")
        for path in sorted(rotations):
            on_progress(f"policy {POLICY}: rotate {path}")
        role = json.loads(
            template("token-role.json")
            .replace("POLICY_PREFIX", self._prefix)
            .replace("MAX_TTL", format_duration(self._max_ttl_ms))
        )
        await self._admin.as_broker("post", f"auth/token/roles/{self._role}", role)
        on_progress(f"token role {self._role}: one task's tokens")

    async def _look_for_leases(
        self, capability: Capability, on_progress: Callable[[str], None]
    ) -> None:
        """Say where a PKI role makes certificates without leases: none would be delivered."""
        engine = engine_at(capability.path, capability.engine)
        if engine.proof is not Proof.CRL:
            return
        role = f"{mount_of(capability.path, engine)}/roles/{capability.path.rpartition('/')[2]}"
        with contextlib.suppress(BackendRefused):  # there is none yet
            answer = await self._admin.as_broker("get", role)
            if not answer["data"].get("generate_lease"):
                on_progress(
                    f"{role}: set generate_lease = true, or {capability.name} gives nothing"
                )

    async def approle(self, mount: str) -> tuple[str, Secret]:
        """Enable AppRole, make the broker's role, and return its role id and a new secret id."""
        with contextlib.suppress(BackendRefused):  # enabled already
            await self._admin.as_broker("post", f"sys/auth/{mount}", {"type": "approle"})
        path = f"auth/{mount}/role/{APPROLE}"
        role = {
            "token_policies": [POLICY],
            "token_ttl": "1h",
            "token_max_ttl": "24h",
            "token_no_default_policy": True,
        }
        await self._admin.as_broker("post", path, role)
        role_id = await self._admin.as_broker("get", f"{path}/role-id")
        secret_id = await self._admin.as_broker("post", f"{path}/secret-id", {"cidr_list": []})
        return role_id["data"]["role_id"], Secret(secret_id["data"]["secret_id"])

    async def _policy(self, name: str, text: str) -> None:
        await self._admin.as_broker("put", f"sys/policies/acl/{name}", {"policy": text})
