"""From what Vault answers to a credential: by the rows of ``engines.py``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from broker.backends.protocol import Minted
from broker.catalog import Revocability
from broker.engines import Engine, Proof, Shape, engine_of
from broker.errors import BackendRefused, BackendUnavailable
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.catalog import Capability
    from broker.grants import Grant

UNLEASED: Final = "#"
"""In the handle of what has no lease in Vault; no path there has one (``config/fields.py``)."""

_OURS: Final = frozenset({"type", "grant_id"})
"""Members that an answer, or what is wrapped, has of its own: another so called would be lost."""

_SERIALS: Final = {
    Proof.CRL: r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){0,31}",
    Proof.KRL: r"[0-9A-Fa-f]{1,16}",
}
"""Serial numbers as Vault writes them, of what is revoked by its number."""


def engine_at(path: str, name: str) -> Engine:
    """Return the row for a path.

    Raises:
        BackendRefused: there is none; the configuration was checked, so another wrote this grant.
    """
    engine = engine_of(path, name)
    if engine is None:
        raise BackendRefused(f"No engine that is known gives a credential at {path!r}.")
    return engine


def minted(
    engine: Engine,
    capability: Capability,
    grant: Grant,
    answer: Mapping[str, Any],
    *,
    now_s: float,
) -> Minted:
    """Return the credential in an answer; ``now_s`` is epoch seconds.

    Raises:
        BackendRefused: it is empty, has no lease although it should, or can't be delivered as it
            is; nothing was made then.
        BackendUnavailable: it is no answer that can be read.
    """
    data: Mapping[str, Any] = answer.get("data") or {}
    if engine.inside:
        data = data.get(engine.inside) or {}
    if not data:
        raise BackendRefused(f"There is nothing in what Vault answers at {capability.path!r}.")
    if engine.shape is Shape.STATIC and (taken := _OURS & data.keys()):
        name = min(taken)
        msg = (
            f"What is at {capability.path!r} has a member {name!r}, as the answer does: rename it."
        )
        raise BackendRefused(msg)
    account = str(data.get(engine.account) or "") if engine.account else ""
    if engine.proof in _SERIALS and not re.fullmatch(_SERIALS[engine.proof], account):
        raise BackendUnavailable("Vault answered no certificate that could be revoked.")
    lease = str(answer.get("lease_id") or "") if engine.leased else ""
    withheld = _unfit(engine, capability, data, lease)
    return Minted(
        lease=lease or f"{capability.path}{UNLEASED}{account or grant.id}",
        lifetime_ms=_lifetime_ms(engine, grant, answer, data, now_s),
        type=engine.name or capability.path.partition("/")[0],
        fields={} if withheld else _fields(data, engine, capability),
        # Whoever has a certificate's serial number gets it from Vault, and may hold its key.
        account="" if withheld else account,
        withheld=withheld,
    )


def _unfit(engine: Engine, capability: Capability, data: Mapping[str, Any], lease: str) -> str:
    """Say why what was made is for nobody: it isn't what was promised of it and decided on.

    Raises:
        BackendRefused: it is something that was there before.
    """
    if engine.leased and not lease:
        msg = f"What is at {capability.path!r} has no lease, so it could never be revoked"
        if engine.proof is not Proof.CRL:
            raise BackendRefused(f"{msg}.")
        return f"{msg}: set generate_lease = true on its role."
    if capability.revocability is Revocability.INSTANT and any(map(data.get, engine.session)):
        return (
            f"What is at {capability.path!r} is a session, which can't be revoked: the capability "
            'has to say revocability = "ttl_only".'
        )
    return ""


def _lifetime_ms(
    engine: Engine, grant: Grant, answer: Mapping[str, Any], data: Mapping[str, Any], now_s: float
) -> int:
    """How long it lives there; what was asked for where nothing says so, 0 where it has no end."""
    if engine.end is not None:
        try:
            return max(1, int((engine.end(data) - now_s) * 1000))
        except ValueError as error:
            raise BackendUnavailable("Vault answered no certificate that can be read.") from error
    if engine.leased:
        return int(answer.get("lease_duration") or 0) * 1000
    if engine.lifetime:
        return int(data.get(engine.lifetime) or 0) * 1000
    return grant.expires_at - grant.created_at if engine.timed else 0


def _fields(
    data: Mapping[str, Any], engine: Engine, capability: Capability
) -> dict[str, str | Secret]:
    """Wrap all that Vault returned but what is known to be public, and add the DSN."""
    fields: dict[str, str | Secret] = {}
    for key, value in data.items():
        if value is None:
            continue
        text = _text(value)
        fields[key] = text if key in engine.public else Secret(text)
    if capability.dsn and {"username", "password"} <= data.keys():
        plain = {key: quote(str(data[key]), safe="") for key in ("username", "password")}
        fields["dsn"] = Secret(capability.dsn.format_map(plain))
    return fields


def _text(value: object) -> str:
    """Certificates of a chain stand one below the other, as in a file; what isn't text is JSON."""
    if isinstance(value, list) and all(isinstance(row, str) for row in cast("list[object]", value)):
        return "\n".join(cast("list[str]", value))
    return value if isinstance(value, str) else json.dumps(value)
