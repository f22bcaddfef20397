"""``broker doctor``: whether the servers the broker leans on are fit for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from broker.cli import output
from broker.cli.check import ConfigFile, Json

if TYPE_CHECKING:
    from broker.doctor import Finding


def doctor(*, config: ConfigFile = Path("config.toml"), json: Json = False) -> int:
    """Look at Redis, Vault, clocks and files, and say what to do about each finding.

    Exit code 1 when something must be mended, 0 with at most warnings.

    Example: broker doctor --config /etc/broker/config.toml
    """
    import asyncio

    from broker.config import load_config

    findings = asyncio.run(_examine(load_config(config), show=not json))
    failed = any(finding.verdict == "failed" for finding in findings)
    if json:
        rows = [
            {"check": f.check, "verdict": f.verdict, "detail": f.detail, "advice": f.advice}
            for f in findings
        ]
        output.document({"healthy": not failed, "findings": rows})
    return 1 if failed else 0


async def _examine(config: object, *, show: bool) -> list[Finding]:
    from broker.config import Config
    from broker.doctor import examine

    assert isinstance(config, Config)  # noqa: S101  load_config returns nothing else
    findings: list[Finding] = []
    async for finding in examine(config):
        findings.append(finding)
        if show:
            output.line(f"{finding.verdict:8} {finding.check}: {finding.detail}")
            if finding.advice:
                output.line(f"{'':8} → {finding.advice}")
    return findings
