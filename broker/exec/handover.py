"""All that a command line says of what is handed over, and how it becomes an environment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.exec.presets import NAMES, preset_of, variables
from broker.exec.refusal import Unfit
from broker.exec.templates import Template, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.exec.files import SecretFiles
    from broker.exec.members import Members
    from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class Handover:
    """Templates of variables and of files, and presets by capability."""

    variables: tuple[Template, ...]
    files: tuple[Template, ...]
    presets: Mapping[str, str]

    @classmethod
    def parse(
        cls,
        capabilities: Sequence[str],
        *,
        env: Iterable[str] = (),
        file: Iterable[str] = (),
        preset: Iterable[str] = (),
    ) -> Handover:
        """Read ``NAME=TEMPLATE`` and ``[CAPABILITY=]PRESET`` texts.

        Raises:
            Unfit: one can't be, whatever the credentials will be.
        """
        named = tuple(parse(text, "--env", capabilities) for text in env)
        filed = tuple(parse(text, "--file", capabilities) for text in file)
        counted = Counter(template.variable for template in (*named, *filed))
        if twice := [name for name, count in counted.items() if count > 1]:
            raise Unfit(f"{twice[0]} is set twice by --env and --file")
        return cls(named, filed, _presets(preset, capabilities))

    def filled(self, credentials: Mapping[str, Members], files: SecretFiles) -> dict[str, str]:
        """Return the variables for the child, and write the files that they name.

        A credential that no template takes from goes by its preset, or the one of its kind.

        Raises:
            Unfit: a member isn't there, or two credentials would set the same variable.
        """
        used = {name for t in (*self.variables, *self.files) for name in t.capabilities}
        found: dict[str, Secret] = {}
        for capability, members in credentials.items():
            kind = "none" if capability in used else preset_of(members)
            more = variables(self.presets.get(capability, kind), members)
            if both := found.keys() & more.keys():
                raise Unfit(
                    f"two credentials would set {min(both)}: say which with --env, "
                    f"or {capability}=none with --env-preset"
                )
            found |= more
        found |= {template.variable: template.filled(credentials) for template in self.variables}
        written = {template.variable: template.filled(credentials) for template in self.files}
        paths = files.write(written)
        plain = {name: secret.reveal() for name, secret in found.items()} | paths
        if odd := [name for name, value in plain.items() if "\0" in value]:
            raise Unfit(f"{odd[0]}: no variable can hold a zero byte; hand it over with --file")
        return plain


def _presets(texts: Iterable[str], capabilities: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        capability, separator, name = text.rpartition("=")
        if name not in NAMES:
            raise Unfit(f"--env-preset {text}: there are {', '.join(NAMES)}")
        if not separator and len(capabilities) > 1:
            raise Unfit(f"--env-preset {text}: of which capability? {capabilities[0]}={text}")
        capability = capability if separator else capabilities[0]
        if capability not in capabilities or capability in found:
            raise Unfit(f"--env-preset {text}: not a capability of its own of those asked for")
        found[capability] = name
    return found
