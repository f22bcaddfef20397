"""OpenSSH's real server and clients, for certificates that a test was granted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.certificates import write_private
from tests.docs.blocks import DOCS
from tests.ports import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_PATH: Final = f"{os.defpath}:/usr/sbin:/sbin"
USER: Final = pwd.getpwuid(os.geteuid()).pw_name
"""Who logs in: whoever runs the tests, since nobody else could be let in by a server of theirs."""

CONFIG: Final = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
PidFile none
{believes}
AuthorizedKeysFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
"""


def program(name: str) -> str:
    """Return where a program of OpenSSH is, or skip the test."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        pytest.skip(f"{name} isn't here: install openssh-server and openssh-client")
    return found


def keygen(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``ssh-keygen``."""
    words = (program("ssh-keygen"), *map(str, words))
    return subprocess.run(words, capture_output=True, text=True, check=check)


def new_key(folder: Path, name: str = "id") -> str:
    """Make a key of an agent's own; the public half."""
    keygen("-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name)
    return (folder / f"{name}.pub").read_text().strip()


@dataclass(frozen=True)
class Session:
    """A session that is open: ``cat`` at its other end."""

    running: asyncio.subprocess.Process

    async def answers(self) -> bool:
        """Whether what is written there comes back."""
        assert self.running.stdin
        assert self.running.stdout
        self.running.stdin.write(b"hello\n")
        return await self.running.stdout.readline() == b"hello\n"

    async def end(self) -> None:
        self.running.terminate()
        await self.running.wait()


@dataclass(frozen=True)
class Sshd:
    """A server on loopback that believes one CA."""

    port: int
    folder: Path

    def words(self, key: Path, certificate: str) -> list[str]:
        """The command of a client with one key and its certificate, up to what it is to run."""
        file = write_private(key.with_suffix(".cert"), certificate.encode())
        options = {
            "BatchMode": "yes",
            "CertificateFile": file,
            "ControlMaster": "no",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "KexAlgorithms": "curve25519-sha256",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        where = ["-i", str(key), "-p", str(self.port), f"{USER}@127.0.0.1"]
        return [program("ssh"), "-F", "none", *flags, *where]

    async def lets_in(self, key: Path, certificate: str) -> bool:
        """Whether a certificate gets a command run."""
        running = await asyncio.create_subprocess_exec(
            *self.words(key, certificate),
            "echo welcome",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, said = await running.communicate()
        assert out == b"welcome\n" or b"Permission denied" in said, said
        return out == b"welcome\n"

    async def session(self, key: Path, certificate: str) -> Session:
        """Open a session and leave it open."""
        running = await asyncio.create_subprocess_exec(
            *self.words(key, certificate),
            "cat",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        opened = Session(running)
        assert await opened.answers()
        return opened


def _set_up(folder: Path, port: int, ca: str, krl: Path) -> None:
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's server shuts itself in
    new_key(folder, "host")
    (folder / "ca.pub").write_text(ca)
    [shown] = re.findall(r"(?ms)^```text\n(.*?)^```", (DOCS / "backends/ssh.md").read_text("utf-8"))
    believes = re.sub(r"(?m)^(TrustedUserCAKeys) .*$", rf"\1 {folder}/ca.pub", shown)
    believes = re.sub(r"(?m)^(RevokedKeys) .*$", rf"\1 {krl}", believes)
    assert believes.count("\n") == 2
    (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder, believes=believes))


@contextlib.asynccontextmanager
async def serving(folder: Path, ca: str, krl: Path) -> AsyncGenerator[Sshd]:
    """Run a server that believes certificates of a CA but for those on a KRL, as the page shows."""
    sshd, port = program("sshd"), free_port()
    _set_up(folder, port, ca, krl)
    with (folder / "sshd.log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            *(sshd, "-D", "-e", "-f", str(folder / "sshd_config")), stderr=log
        )
    try:

        async def answers() -> bool:
            assert running.returncode is None, (folder / "sshd.log").read_text()
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return True
            return False

        await wait_until(answers, "sshd answers")
        yield Sshd(port, folder)
    finally:
        if running.returncode is None:
            running.terminate()
        await running.wait()
