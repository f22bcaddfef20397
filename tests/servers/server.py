"""What the servers share: a package that has to be there, and a user that isn't root."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from broker.dev.engines.process import Account, Engine, confine_to
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATH = f"{os.defpath}:/usr/sbin:/sbin"


class Server(Engine):
    """A server of a Debian package, on a port of loopback that stays its own while it is down."""

    package: ClassVar[str]

    def __init__(self, data: Path) -> None:
        """``data`` is made when missing. Without its package the test is skipped."""
        super().__init__(data / self.package, None)
        self.port = free_port()
        self.found(self.program)

    @property
    def place(self) -> str:
        """Where clients go: ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    def found(self, program: str) -> Path:
        """Return where one of the package's programs is."""
        path = shutil.which(program, path=_PATH)
        if path is None:
            pytest.skip(f"{program} isn't here: install Debian's package {self.package}")
        return Path(path)

    def own(self, name: str) -> Path:
        """Make a directory that is the server's to write."""
        directory = self.home / name
        directory.mkdir(mode=0o700, exist_ok=True)
        if account := self._account():
            self.home.chmod(0o711)
            os.chown(directory, account.uid, account.gid)
        return directory

    def _account(self) -> Account | None:
        if os.geteuid() != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        shut = (p for p in (self.home / "x").parents if not p.stat().st_mode & 0o001)
        return Account(nobody.pw_uid, nobody.pw_gid, tuple(shut))

    def _confine(self, argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        account = self._account()
        return confine_to(account, argv, self.death_signal) if account else super()._confine(argv)
