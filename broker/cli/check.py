"""``broker check-config``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from broker.cli import output

ConfigFile = Annotated[
    Path, Parameter(help="The configuration file.", name=["--config", "-c"], metavar="FILE")
]
Json = Annotated[bool, Parameter(help="Print JSON.", negative="")]


def check_config(*, config: ConfigFile = Path("config.toml"), json: Json = False) -> int:
    """Check a configuration file; says everything that is wrong with it, and where.

    Example: broker check-config --config /etc/broker/config.toml
    """
    from broker.config import load_config

    loaded = load_config(config)
    counts = {
        "issuers": len(loaded.identity.issuers),
        "principals": len(loaded.principals),
        "capabilities": len(loaded.capabilities),
        "channels": len(loaded.channels),
        "backends": len(loaded.backends),
    }
    if loaded.backends:
        from broker import settings
        from broker.backends.plugins import NoHandles
        from broker.clock import SystemClock

        settings.backends(loaded, NoHandles(), SystemClock())
    doubts = {entry.name: doubt for entry in loaded.capabilities if (doubt := entry.doubt())}
    if json:
        output.document({"config": str(config), "valid": True, **counts, "warnings": doubts})
    else:
        for name, doubt in doubts.items():
            output.line(f"warning: capability {name}: {doubt}")
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        output.line(f"{config}: valid ({listed})")
    return 0
