"""A secret value that can't be shown by accident."""

from __future__ import annotations

from typing import Any, NoReturn, final

REDACTED = "[redacted]"


@final
class Secret:
    """Holds a secret string; every way of turning it into text but ``reveal()`` redacts it.

    Pickling and copying are refused, so that it can't slip into a cache or another process.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        """``value`` is the secret itself."""
        self.__value = value

    def reveal(self) -> str:
        """Return the secret. Whoever calls this is the one who delivers it."""
        return self.__value

    def __repr__(self) -> str:
        return REDACTED

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        return NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> NoReturn:
        msg = "a Secret is never pickled or copied"
        raise TypeError(msg)

    def __getstate__(self) -> Any:  # noqa: ANN401  object's own signature
        return self.__reduce__()
