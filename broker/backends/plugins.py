"""Backends of other packages: found by entry point, made from their own table of the configuration.

Only those that the configuration names are imported.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker.backends.guarded import GuardedBackend
from broker.backends.protocol import Backend, HandleStore
from broker.errors import BackendRefused, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.metadata import EntryPoint

    from broker.clock import Clock
    from broker.secret import Secret

GROUP: Final = "broker.backends"


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend is made with, and all that it gets.

    ``name`` is what it has to call itself. ``options`` are its keys of ``[backends.NAME]`` as they
    stand there, but those that end in ``_file``: absolute paths.
    """

    name: str
    options: Mapping[str, Any]
    clock: Clock
    handles: HandleStore
    read: Callable[[Path], Secret]

    def secret(self, option: str) -> Secret:
        """Read the file that an option names; whoever asks for it again sees a new one.

        Raises:
            ConfigError: there is no such option or file, or nothing in it.
        """
        path = self.options.get(option)
        if not isinstance(path, Path):
            raise ConfigError(f"{option} is missing: name the file that holds the secret")
        return self.read(path)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A backend of the configuration; ``kind`` is its entry point, each call may take so long."""

    name: str
    kind: str
    timeout_ms: int

    @property
    def place(self) -> str:
        """Where it stands in the configuration."""
        return f"[backends.{self.name}]"


def make(plugin: Plugin, context: BackendContext) -> GuardedBackend:
    """Make a backend; opens no connection yet.

    Raises:
        ConfigError: no package has it, it can't be imported, or it refuses its options.
    """
    point = _find(plugin)
    try:
        made: Any = point.load()(context)
    except ConfigError as error:
        raise ConfigError(f"{plugin.place}: {error.detail}") from error
    except (Exception, SystemExit) as error:
        advice = f"    mend or reinstall {package(point)}, or remove {plugin.place}"
        detail = f"{plugin.place}: {point.value} failed: {type(error).__name__}\n{advice}"
        raise ConfigError(detail) from error
    if Backend not in type(made).__mro__:
        reason = "made no subclass of broker.backends.Backend"
    elif getattr(made, "name", "") != plugin.name:
        reason = "made a backend of another name than its context has"
    else:
        timeout_s = plugin.timeout_ms / 1000
        return GuardedBackend(made, context.clock, timeout_s=timeout_s, origin=package(point))
    raise ConfigError(f"{plugin.place}: {point.value} {reason}: ask the makers of {package(point)}")


class NoHandles(HandleStore):
    """For backends that are looked at and don't mint."""

    async def handle(self, task_id: str, op: str, handle: str, **about: object) -> str:
        """Refuse."""
        raise BackendRefused(f"nothing is minted here: {op} {handle} of {task_id}, {about}")


def package(point: EntryPoint) -> str:
    """Return the name and version of the package that an entry point is of."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "its package"


def _find(plugin: Plugin) -> EntryPoint:
    """Find the one entry point of a kind.

    Raises:
        ConfigError: there is none, or which is meant can't be known.
    """
    installed = entry_points(group=GROUP)
    found = [point for point in installed if point.name == plugin.kind]
    if len(found) == 1:
        return found[0]
    if found:
        owners = " and ".join(sorted(package(point) for point in found))
        raise ConfigError(
            f"{plugin.place}: {owners} both have a backend {plugin.kind!r}\n    uninstall one"
        )
    names = sorted({point.name for point in installed})
    close = difflib.get_close_matches(plugin.kind, names, n=1)
    meant = f'did you mean kind = "{close[0]}"? ' if close else ""
    raise ConfigError(
        f"{plugin.place}: no package here has a backend {plugin.kind!r}\n"
        f"    {meant}installed: {', '.join(names) or 'none'}; "
        "install its package where the broker runs, or name another by kind"
    )
