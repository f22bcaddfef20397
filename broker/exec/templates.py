"""Texts with ``{{member}}`` or ``{{capability.member}}`` in them, to be filled in by credentials.

What can be known to be wrong is found when they are read, before a credential exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.exec.refusal import Unfit
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.exec.members import Members

_FIELD: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEMBER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Field:
    """One place to fill in: a member of one capability's credential."""

    capability: str
    member: str


@dataclass(frozen=True, slots=True)
class Template:
    """The text of one variable or file: plain texts, and fields between them."""

    variable: str
    parts: tuple[str | Field, ...]

    @property
    def capabilities(self) -> frozenset[str]:
        """Whose credentials it takes from."""
        return frozenset(part.capability for part in self.parts if isinstance(part, Field))

    def filled(self, credentials: Mapping[str, Members]) -> Secret:
        """Return the text with the credentials' members in it.

        Raises:
            Unfit: a credential has no such member; it says which it has.
        """
        return Secret("".join(_text(part, self.variable, credentials) for part in self.parts))


def parse(text: str, option: str, capabilities: Sequence[str]) -> Template:
    """Read ``NAME=text``, for credentials of these capabilities.

    Raises:
        Unfit: no name, braces that don't close, or another capability; or, with several of them, a
            member without one.
    """
    name, separator, value = text.partition("=")
    if not separator or not _VARIABLE.fullmatch(name):
        # The rest isn't repeated: it may be a secret.
        raise Unfit(f"{option} takes NAME=TEMPLATE, as in {option} PGUSER={{{{username}}}}")
    where = f"{option} {name}"
    parts: list[str | Field] = []
    end = 0
    for found in _FIELD.finditer(value):
        parts += [value[end : found.start()], _field(found[1].strip(), where, capabilities)]
        end = found.end()
    parts.append(value[end:])
    if any(isinstance(part, str) and "{{" in part for part in parts):
        raise Unfit(f"{where}: there is a {{{{ without its }}}}")
    if "\0" in value:
        raise Unfit(f"{where}: no variable can hold a zero byte")
    return Template(name, tuple(part for part in parts if part != ""))


def _field(text: str, where: str, capabilities: Sequence[str]) -> Field:
    of, dot, member = text.rpartition(".")
    if not _MEMBER.fullmatch(member):
        raise Unfit(f"{where}: {{{{{text}}}}} names no member, as {{{{username}}}} does")
    if not dot and len(capabilities) == 1:
        return Field(capabilities[0], member)
    if not dot:
        says = " or ".join(f"{{{{{name}.{member}}}}}" for name in capabilities)
        raise Unfit(f"{where}: of which capability? {says}")
    if of not in capabilities:
        raise Unfit(f"{where}: {of} isn't asked for; --capability names {', '.join(capabilities)}")
    return Field(of, member)


def _text(part: str | Field, variable: str, credentials: Mapping[str, Members]) -> str:
    if isinstance(part, str):
        return part
    members = credentials[part.capability]
    value = members.get(part.member)
    if value is None:
        raise Unfit(
            f"{variable}: the credential of {part.capability} has no {part.member!r}; "
            f"it has {', '.join(members.names)}"
        )
    return value.reveal()
