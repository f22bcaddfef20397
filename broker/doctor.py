"""Looks at everything the broker leans on, and says what to do about what it finds."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from broker import settings
from broker.backends.plugins import NoHandles
from broker.backends.vault_api import vault_state
from broker.clock import SystemClock
from broker.errors import BrokerError, ConfigError
from broker.ledger.durability import durability
from broker.ledger.queries import Queries
from broker.ledger.schema import Schema
from broker.notify.opening import open_channel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from broker.backends.vault_api import VaultApi
    from broker.clock import Clock
    from broker.config import Config, VaultSection

_SKEW_WARN_MS: Final = 500
_SKEW_FAIL_MS: Final = 5000
_LOW_DISK: Final = 512 << 20


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


async def examine(config: Config, clock: Clock | None = None) -> AsyncGenerator[Finding]:
    """Run every check, yielding each finding as it is made."""
    clock = clock or SystemClock()
    for finding in (
        *_files(config),
        *_audit(config),
        *_capabilities(config),
        *_channels(config, clock),
    ):
        yield finding
    async for finding in _redis(config, clock):
        yield finding
    if config.vault is not None:
        api = settings.vault_api(config.vault, clock)
        try:
            async for finding in _vault(config, config.vault, api, clock):
                yield finding
        finally:
            api.close()
    async for finding in _backends(config, clock):
        yield finding
    async for finding in _targets(config):
        yield finding


def _files(config: Config) -> Iterator[Finding]:
    """Secrets and signing keys are nobody else's to read."""
    vault = config.vault
    redis = config.redis
    secrets = [redis.password_file, redis.sentinel_password_file, redis.key_file]
    if vault is not None:
        secrets += [vault.role_id_file, vault.secret_id_file, vault.jwt_file, vault.token_file]
    state, audit = config.broker.state_dir, config.audit
    keys = state / "keys"
    secrets += [audit.signing_key(state), audit.fingerprint_key(state)]
    secrets += [file for sink in audit.sinks for file in (sink.token_file, sink.secret_file)]
    secrets += [file for channel in config.channels for file in channel.secret_files]
    secrets += [file for entry in config.backends.values() for file in entry.secret_files]
    secrets += [entry.dsn_file for entry in config.targets]
    found = [path for path in secrets if path is not None and path.exists()]
    found += sorted(path for path in keys.glob("*") if path.is_file()) if keys.is_dir() else []
    open_ones = [path for path in found if _others_can_read(path)]
    for path in open_ones:
        yield Finding(
            "file modes", Verdict.FAILED, f"{path} is open to others", f"run: chmod 600 {path}"
        )
    if not open_ones:
        yield Finding("file modes", Verdict.OK, f"{len(found)} secret files are private")


def _audit(config: Config) -> Iterator[Finding]:
    """The log can be written: without it nothing is issued for long."""
    if not config.audit.enabled:
        advice = "set enabled = true in [audit]: events in the ledger alone can be changed"
        yield Finding("audit log", Verdict.WARNING, "is switched off", advice)
        return
    folder = config.audit.folder(config.broker.state_dir)
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        advice = "let the broker write there, or name another place by log_dir in [audit]"
        detail = f"{place} can't be written: {error.strerror}"
        yield Finding("audit log", Verdict.FAILED, detail, advice)
        return
    free = shutil.disk_usage(place).free
    detail = f"{place} can be written, {free >> 20} MiB free"
    if free < _LOW_DISK:
        advice = "free its disk: when it is full, nothing is issued any more"
        yield Finding("audit log", Verdict.WARNING, detail, advice)
    else:
        yield Finding("audit log", Verdict.OK, detail)


def _capabilities(config: Config) -> Iterator[Finding]:
    """None promises to be revocable when its engine's credentials aren't."""
    for entry in config.capabilities:
        if doubt := entry.doubt():
            advice = "check at the target that a revoked one is refused, or leave revocability out"
            yield Finding(f"capability {entry.name}", Verdict.WARNING, doubt, advice)


def _channels(config: Config, clock: Clock) -> Iterator[Finding]:
    """Each channel could be told; whether it takes what it is told, a test message shows."""
    for entry in config.channels:
        check = f"channel {entry.name}"
        try:
            open_channel(entry, clock, issuer=config.broker.issuer)
        except ConfigError as error:
            advice = "mend it: while it can't be used, the broker doesn't start"
            yield Finding(check, Verdict.FAILED, error.detail, advice)
        else:
            detail = f"{entry.kind}; `broker notify test {entry.name}` sends it a message"
            yield Finding(check, Verdict.OK, detail)


def _others_can_read(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


async def _redis(config: Config, clock: Clock) -> AsyncGenerator[Finding]:
    connection = settings.connect(config)
    try:
        before = clock.now()
        queries = Queries(connection, ())
        theirs = await queries.now()
        after = clock.now()
        yield Finding("redis", Verdict.OK, "answers")
        yield _skew("redis clock", theirs - after * 1000, theirs - before * 1000)
        lacks = await durability(connection)
        for lack in lacks:
            found, _, advice = lack.partition(": ")
            yield Finding("redis durability", Verdict.WARNING, found, advice)
        if not lacks:
            yield Finding("redis durability", Verdict.OK, "append-only file on, nothing is evicted")
        schema = Schema(connection)
        if problem := schema.problem(await schema.held()):
            advice = "nothing is issued as it is: mend that before this release is started"
            yield Finding("ledger layout", Verdict.FAILED, problem, advice)
        else:
            yield Finding("ledger layout", Verdict.OK, f"version {schema.version}, or empty")
        yield await _stuck(queries)
    except BrokerError as error:
        advice = "check [redis] url and password_file, and that the server runs"
        yield Finding("redis", Verdict.FAILED, error.detail, advice)
    finally:
        await connection.close()


async def _stuck(queries: Queries) -> Finding:
    """What could not be revoked is somebody's to look at."""
    stuck, failing = await queries.count("gx|"), await queries.count("gr|")
    detail = f"{stuck} grants are stuck, {failing} were tried in vain at least once"
    if not stuck:
        return Finding("revocation", Verdict.OK, detail)
    advice = "broker grant list --state stuck says why; then broker grant retry --all-stuck"
    return Finding("revocation", Verdict.WARNING, detail, advice)


def _skew(check: str, least_ms: float, most_ms: float) -> Finding:
    """Judge a clock by what is sure: it is ahead of ours by between these two.

    How long it took to ask, and what a whole second hides, is no skew.
    """
    sure_ms = max(least_ms, -most_ms, 0)
    detail = f"{(least_ms + most_ms) / 2000:+.2f} s from this machine's"
    if sure_ms < _SKEW_WARN_MS:
        return Finding(check, Verdict.OK, detail)
    verdict = Verdict.FAILED if sure_ms >= _SKEW_FAIL_MS else Verdict.WARNING
    return Finding(check, verdict, detail, "let NTP set both clocks: expiry depends on them")


async def _vault(
    config: Config, vault: VaultSection, api: VaultApi, clock: Clock
) -> AsyncGenerator[Finding]:
    state = await vault_state(api)
    if state != "ok":
        advice = "check [vault] address and ca_file, and that it is unsealed"
        yield Finding("vault", Verdict.FAILED, state, advice)
        return
    yield Finding("vault", Verdict.OK, "answers, unsealed")
    before = clock.now()
    date = await api.server_date()
    after = clock.now()
    if date:
        theirs = parsedate_to_datetime(date).timestamp()  # in whole seconds, cut off
        yield _skew("vault clock", (theirs - after) * 1000, (theirs + 1 - before) * 1000)
    paths = [c.path for c in config.capabilities if c.backend == "vault" and c.path]
    rotations = [c.rotate for c in config.capabilities if c.rotate]
    needed = _needed(vault, paths) | dict.fromkeys(rotations, "update")
    try:
        rights = await api.rights([*needed, *_forbidden(vault, paths)])
    except BrokerError as error:
        advice = "check the files of [vault] auth; `broker vault bootstrap` makes new ones"
        file = error.__cause__  # which the pipeline's callers aren't told
        detail = file.detail if isinstance(file, ConfigError) else error.detail
        yield Finding("vault login", Verdict.FAILED, detail, advice)
        return
    yield Finding("vault login", Verdict.OK, f"by {vault.auth}")
    for finding in _judge(rights, needed, _forbidden(vault, paths)):
        yield finding


async def _backends(config: Config, clock: Clock) -> AsyncGenerator[Finding]:
    """Each backend of another package can be made, and says itself how it is."""
    for name in config.backends:
        check = f"backend {name}"
        try:
            backend = settings.backend(config, name, NoHandles(), clock)
        except ConfigError as error:
            detail, _, advice = error.detail.partition("\n")
            yield Finding(check, Verdict.FAILED, detail, advice.strip())
            continue
        state = await backend.health()
        await backend.close()
        detail = f"{backend.origin}: {state}"
        if state == "ok":
            yield Finding(check, Verdict.OK, detail)
        else:
            advice = f"check [backends.{name}], and what it is for"
            yield Finding(check, Verdict.FAILED, detail, advice)


async def _targets(config: Config) -> AsyncGenerator[Finding]:
    """Each target says which accounts it has."""
    for target in settings.targets(config):
        check = f"target {target.name}"
        try:
            accounts = await target.accounts()
        except BrokerError as error:
            advice = (
                "check its dsn_file, and what docs/operations/reconcile.md says its user may do"
            )
            yield Finding(check, Verdict.FAILED, error.detail, advice)
        else:
            detail = f"answers; {len(accounts)} of its accounts are called {target.pattern}"
            yield Finding(check, Verdict.OK, detail)


def _needed(vault: VaultSection, paths: list[str]) -> dict[str, str]:
    """Each path the broker uses, and the capability it must have there."""
    fixed = {
        f"auth/token/create/{vault.token_role}": "update",
        "auth/token/lookup-accessor": "update",
        "auth/token/revoke-accessor": "update",
        "auth/token/accessors": "list",
        "sys/leases/lookup": "update",
        "sys/leases/revoke": "update",
        "sys/leases/renew": "update",
        "sys/wrapping/wrap": "update",
    }
    return fixed | {f"sys/leases/lookup/{path}": "list" for path in paths}


def _forbidden(vault: VaultSection, paths: list[str]) -> list[str]:
    """Paths on which the broker should have nothing at all."""
    tests = [f"sys/policies/acl/{vault.policy_prefix}any", "auth/token/create", "sys/raw/any"]
    return [
        *paths,
        *tests,
        "sys/mounts/any",
        "sys/auth/any",
        f"auth/token/roles/{vault.token_role}",
    ]


def _judge(
    rights: dict[str, list[str]], needed: dict[str, str], forbidden: list[str]
) -> Iterator[Finding]:
    advice = "run `broker vault bootstrap`, or apply deploy/vault by hand"
    missing = [
        f"{need} on {path}"
        for path, need in needed.items()
        if need not in rights[path] and "root" not in rights[path]
    ]
    too_many = [path for path in forbidden if set(rights[path]) - {"deny"}]
    for lack in missing:
        yield Finding("vault rights", Verdict.FAILED, f"missing: {lack}", advice)
    for path in too_many:
        held = ", ".join(rights[path])
        detail = f"too many: {held} on {path}"
        yield Finding("vault rights", Verdict.WARNING, detail, "take it away: " + advice)
    if not missing and not too_many:
        yield Finding("vault rights", Verdict.OK, "exactly what is needed; it can't read a secret")
