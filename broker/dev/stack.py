"""The embedded parts together: started in order, configured, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from broker.dev import vault
from broker.dev.config import FILE, Draft, Embedded, names
from broker.dev.engines import DataDirLock, OpenBao, Postgres, Valkey
from broker.dev.engines.process import write_private
from broker.dev.issuer import DevIssuer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.clock import Clock
    from broker.config import Config


class DevStack:
    """Embedded engines on one data directory.

    Those that the given configuration points elsewhere are not started.
    """

    def __init__(
        self,
        data: Path,
        clock: Clock,
        *,
        config_file: Path | None = None,
        durable: bool = True,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``durable`` off makes PostgreSQL faster and unsafe, for tests."""
        self.data = data.absolute()
        self.issuer: DevIssuer
        self.valkey: Valkey | None = None
        self.openbao: OpenBao | None = None
        self.postgres: Postgres | None = None
        self._clock = clock
        self._file = config_file
        self._durable = durable
        self._say = on_progress
        self._stack = contextlib.ExitStack()
        self._kept = contextlib.ExitStack()

    def start(self, listen: str, url: str) -> Config:
        """Start what is needed and return the complete configuration.

        Raises:
            EngineError, ConfigError: with what to do about it; whatever was started is stopped.
        """
        with self._stack:
            self._stack.enter_context(DataDirLock(self.data))
            draft = Draft(self._file, self.data)
            self.issuer = DevIssuer(self.data, self._clock)
            self.issuer.publish()
            if draft.needs_vault:
                for name in ("vault-role-id", "vault-secret-id"):
                    write_private(self.data / name, "not yet\n")
            draft.check()
            if draft.needs_redis:
                self.valkey = Valkey(self.data, on_progress=self._say)
                self._stack.enter_context(self.valkey)
            if draft.needs_vault:
                self.postgres = Postgres(self.data, durable=self._durable, on_progress=self._say)
                self._stack.enter_context(self.postgres)
                self.openbao = OpenBao(self.data, on_progress=self._say)
                self._stack.enter_context(self.openbao)
            config = draft.complete(self._parts(listen, url))
            if self.openbao is not None and self.postgres is not None:
                self._say("setting up OpenBao")
                asyncio.run(self._set_up(config, self.openbao, self.postgres))
            self._kept = self._stack.pop_all()
        return config

    def stop(self) -> None:
        """Stop what was started, and only that."""
        self._kept.close()

    def places(self, url: str) -> dict[str, str | None]:
        """Where everything is: addresses, and the files that hold the engines' own secrets."""
        bao, postgres = self.openbao, self.postgres
        return {
            "url": url,
            "console": f"{url}/console",
            "redis": self.valkey.url if self.valkey else None,
            "vault": bao.address if bao else None,
            "vault_token_file": str(bao.root_token_file) if bao else None,
            "postgres": f"postgresql://{postgres.host}:{postgres.port}/orders"
            if postgres
            else None,
            "postgres_admin_dsn_file": str(postgres.admin_dsn_file) if postgres else None,
            "config": str(self.data / FILE),
            "data": str(self.data),
        }

    def names(self) -> list[str]:
        """The principals that ``broker dev token`` knows."""
        return names(self.data)

    async def _set_up(self, config: Config, bao: OpenBao, postgres: Postgres) -> None:
        api = vault.admin(bao, self._clock)
        try:
            await vault.mount_orders(api, postgres)
            await vault.give_rights(api, config, self.data)
        finally:
            api.close()

    def _parts(self, listen: str, url: str) -> Embedded:
        dsn = ""
        if self.postgres is not None:
            place = f"{self.postgres.host}:{self.postgres.port}"
            dsn = f"postgresql://{{username}}:{{password}}@{place}/orders"
        return Embedded(
            url=url,
            listen=listen,
            redis_url=self.valkey.url if self.valkey else "",
            vault_address=self.openbao.address if self.openbao else "",
            postgres_dsn=dsn,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
