"""``broker notify``: whether channels take what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.check import ConfigFile, Json
from broker.cli.refusals import CommandFailed, UsageError

if TYPE_CHECKING:
    from broker.config import Config
    from broker.config.channels import ChannelEntry

_TEST: Final = """\
Examples:

  broker notify test --config /etc/broker/config.toml
  broker notify test security --config /etc/broker/config.toml
"""

app = App(name="notify", group_commands="Commands", help="Try out the channels of notifications.")


@app.command(name="test", help_epilogue=_TEST)
def try_out(
    channel: Annotated[
        str | None, Parameter(help="Only this one.", metavar="CHANNEL", show_default=False)
    ] = None,
    /,
    *,
    config: ConfigFile = Path("config.toml"),
    json: Json = False,
) -> int:
    """Send a test message to each channel of a configuration, and say what came of it.

    It is sent from here, once, and is not in the log. Exit code 1 when one didn't arrive.
    """
    import asyncio

    from broker.config import load_config

    loaded = load_config(config)
    entries = [entry for entry in loaded.channels if channel in (None, entry.name)]
    if channel is not None and not entries:
        known = ", ".join(entry.name for entry in loaded.channels)
        raise UsageError(
            f"there is no channel {channel!r} in {config}", hint=f"there are: {known or 'none'}"
        )
    if not entries:
        raise CommandFailed(
            f"{config} has no channels: nobody is told of anything",
            code="not_found",
            hint="add [[channels]]; docs/notifications.md has examples",
        )
    problems = asyncio.run(_send(loaded, entries))
    if json:
        rows = [
            {"channel": name, "arrived": not problem, "problem": problem or None}
            for name, problem in problems.items()
        ]
        output.document({"items": rows})
    else:
        for name, problem in problems.items():
            output.line(f"{name}: {problem or 'arrived'}")
    return 1 if any(problems.values()) else 0


async def _send(config: Config, entries: list[ChannelEntry]) -> dict[str, str]:
    """Send one message to each; return what went wrong, by the channel's name."""
    from broker.audit.sinks import SinkError
    from broker.clock import SystemClock
    from broker.errors import ConfigError
    from broker.notify.news import trial
    from broker.notify.opening import open_channel

    clock, issuer = SystemClock(), config.broker.issuer
    problems: dict[str, str] = {}
    for entry in entries:
        problems[entry.name] = ""
        try:
            channel = open_channel(entry, clock, issuer=issuer)
            try:
                await channel.send(trial(issuer, int(clock.now() * 1000)))
            finally:
                await channel.close()
        except ConfigError as error:
            problems[entry.name] = error.detail
        except SinkError as error:
            problems[entry.name] = error.problem
    return problems
