"""What of our own environment a child gets: a list of names, and whatever else is named by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.exec.refusal import Unfit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Where programs and one's own files are, what the terminal can do, which language and time zone.
# The names of LC_ are written out: sshd lets clients set any variable that begins so.
ALLOWED: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TERM", "COLORTERM", "NO_COLOR", "TZ"),
    *("LANG", "LANGUAGE", "LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION"),
    *("LC_MEASUREMENT", "LC_MESSAGES", "LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER"),
    *("LC_TELEPHONE", "LC_TIME"),
)


def clean(environ: Mapping[str, str], named: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables that are allowed, and those that are named.

    Raises:
        Unfit: one that is named isn't set.
    """
    wanted = tuple(named)
    for name in wanted:
        if name not in environ:
            raise Unfit(f"--pass-env {name}: there is no such variable here")
    return {name: environ[name] for name in (*ALLOWED, *wanted) if name in environ}
