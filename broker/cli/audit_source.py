"""Which log a command is about, and whose signatures are believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Group, Parameter

from broker.cli.refusals import CommandFailed, UsageError

if TYPE_CHECKING:
    from broker.audit.note import VerifierKey
    from broker.config import Config

Folder = Annotated[Path | None, Parameter(help="The folder of the log.", metavar="DIR")]


@Parameter(name="*", group=Group("Log", sort_key=20))
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Whose log it is: by the broker's configuration, or by the log's public key."""

    config: Annotated[
        Path | None,
        Parameter(
            name=["--config", "-c"],
            help="The broker's configuration file: it says where the log and its key are.",
            metavar="FILE",
        ),
    ] = None
    key: Annotated[
        tuple[str, ...],
        Parameter(
            help="A public key of the log, or a file that holds it: what `broker audit key` "
            "prints. Repeat it for keys from before.",
            metavar="KEY",
            negative="",
            show_default=False,
        ),
    ] = ()

    def folder(self, given: Path | None) -> Path:
        """Return the folder of the log."""
        if given is not None:
            return given
        if self.config is None:
            raise UsageError("Which log? Give its folder, or --config")
        config = self.loaded()
        return config.audit.folder(config.broker.state_dir)

    def loaded(self) -> Config:
        """Return the configuration, which has been named."""
        from broker.config import load_config

        assert self.config is not None  # noqa: S101  the callers looked
        return load_config(self.config, files_may_be_missing=True)

    def believed(self) -> list[VerifierKey]:
        """Return the keys that are believed."""
        from broker.audit.note import NoteError, VerifierKey

        keys = _configured(self.loaded()) if self.config is not None else []
        for text in self.key:
            file = Path(text)
            try:
                given = file.read_text("utf-8") if "+" not in text or file.is_file() else text
                keys += map(VerifierKey.parse, given.split())
            except (OSError, UnicodeDecodeError, NoteError) as error:
                raise UsageError(f"--key {text}: {error}") from error
        if not keys:
            raise UsageError("Signed by whom? Give --key or --config")
        return keys


NOWHERE: Final = Source()


def read_text(path: Path) -> str:
    """Read a file that the command line names."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read") from error


def unreadable(folder: Path, error: OSError) -> CommandFailed:
    """Say that the log can't be read."""
    return CommandFailed(f"{folder} can't be read: {error.strerror}", code="unreadable")


def _configured(config: Config) -> list[VerifierKey]:
    from broker.audit.note import log_origin
    from broker.audit.signing_key import load_signer
    from broker.audit_log import verifier_keys

    path = config.audit.signing_key(config.broker.state_dir)
    if not path.exists():  # it isn't made here: a key that has signed nothing proves nothing
        raise CommandFailed(
            f"There is no key {path}", code="not_found", hint="give the log's public key by --key"
        )
    return [load_signer(path, log_origin(config.broker.issuer)).key, *verifier_keys(config)]
