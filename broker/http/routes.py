"""Which route a request has taken: the template of its path, of which there are few."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope


def template_of(scope: Scope) -> str:
    """Return such as ``/v1/tasks/{task_id}``; empty if no route was found, or none yet."""
    path = getattr(scope.get("route"), "path", "")
    # Where an application is mounted is one of the few as well.
    return f"{scope.get('root_path', '')}{path}" if isinstance(path, str) and path else ""
