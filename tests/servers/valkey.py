"""A second Valkey, as a target: on TCP, with users in an ACL file. The first is the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import redis

from broker.dev.engines import Valkey
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

ADMIN_PASSWORD: Final = "admin-of-a-test"


class TargetValkey(Valkey):
    """A Valkey under ``data/valkey`` with the admin ``admin`` and nobody else."""

    def __init__(self, data: Path) -> None:
        """The port stays its own while it is down."""
        super().__init__(data)
        self.port = free_port()

    @property
    def place(self) -> str:
        """Where clients go: ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    @property
    def _acl_file(self) -> Path:
        return self.home / "users.acl"

    def _launch(self) -> None:
        if not self._acl_file.exists():
            admin = f"user admin on >{ADMIN_PASSWORD} ~* &* +@all"
            self._acl_file.write_text(f"{admin}\nuser default off\n")
        super()._launch()

    def _config(self) -> str:
        ours = f'port {self.port}\nbind 127.0.0.1\naclfile "{self._acl_file}"\n'
        return super()._config().replace('port "0"\n', ours)

    def _answers(self) -> bool:
        try:
            return "admin" in self.ask("ACL", "WHOAMI")
        except redis.ConnectionError:
            return False

    def ask(self, *words: str) -> Any:
        """Ask as the admin."""
        url = f"redis://admin:{ADMIN_PASSWORD}@{self.place}/0"
        with redis.Redis.from_url(url, decode_responses=True) as client:  # pyright: ignore[reportUnknownMemberType]
            return cast("Any", client.execute_command(*words))  # pyright: ignore[reportUnknownMemberType]

    def users(self) -> set[str]:
        """The users Vault has made: all but the admin and the one that is off."""
        return set(self.ask("ACL", "USERS")) - {"admin", "default"}
