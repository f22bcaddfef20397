"""``broker vault``: prepare Vault or OpenBao."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.check import ConfigFile, Json

if TYPE_CHECKING:
    from broker.config import Config

app = App(name="vault", group_commands="Commands", help="Prepare Vault or OpenBao for the broker.")


@app.command
def bootstrap(
    *,
    token_file: Annotated[
        Path, Parameter(help="A file with a Vault admin's token.", metavar="FILE")
    ],
    config: ConfigFile = Path("config.toml"),
    approle: Annotated[
        bool,
        Parameter(
            help="Also make the broker's AppRole, and write its ids to the configured files.",
            negative="",
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Write the policies, the token role, and with --approle the broker's login.

    Run it again after capabilities have changed; it changes nothing else. What it writes stands in
    deploy/vault, for an admin who would rather apply it by hand.

    Example: broker vault bootstrap --config config.toml --token-file admin-token --approle
    """
    import asyncio

    from broker.config import load_config

    written = asyncio.run(
        _bootstrap(
            load_config(config, files_may_be_missing=approle),
            token_file,
            approle=approle,
            show=not json,
        )
    )
    if json:
        output.document({"written": written})
    return 0


async def _bootstrap(config: Config, token_file: Path, *, approle: bool, show: bool) -> list[str]:
    from broker.backends.bootstrap import Bootstrap
    from broker.config import read_secret_file, write_secret_file
    from broker.errors import ConfigError
    from broker.settings import admin_api

    vault = config.vault
    if vault is None:
        msg = "the configuration has no [vault] section: there is nothing to set up"
        raise ConfigError(msg)
    written: list[str] = []

    def say(text: str) -> None:
        written.append(text)
        if show:
            output.line(text)

    api = admin_api(vault, read_secret_file(token_file))
    try:
        steps = Bootstrap(
            api,
            token_role=vault.token_role,
            policy_prefix=vault.policy_prefix,
            max_ttl_ms=config.tasks.max_ttl,
        )
        await steps.policies(config.catalog().capabilities.values(), on_progress=say)
        if approle:
            if vault.role_id_file is None or vault.secret_id_file is None:
                msg = '--approle needs auth = "approle" with role_id_file and secret_id_file'
                raise ConfigError(msg)
            role_id, secret_id = await steps.approle(vault.auth_mount or "approle")
            write_secret_file(vault.role_id_file, role_id)
            write_secret_file(vault.secret_id_file, secret_id.reveal())
            say(f"AppRole broker: its ids are in {vault.role_id_file} and {vault.secret_id_file}")
    finally:
        api.close()
    return written
