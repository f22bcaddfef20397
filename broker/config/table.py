"""What all tables of the file have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationInfo

from broker.config.problems import Fault, how_to_write
from broker.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

Keys = dict[str, bool]
"""Keys that go with a choice, and whether they are required then."""


def written(default: str) -> Any:  # noqa: ANN401  takes the type of the field it stands for
    """Give a field a default as it would stand in the file, checked like anything there."""
    return default


class Table(BaseModel):
    """A table of the file. Unknown keys are refused, types are taken literally.

    Rules over several fields are validators of the last of them, and look at those before in
    ``info.data``: so a fault in one field doesn't keep the others of its table unchecked.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, validate_default=True
    )

    @classmethod
    def _check_key(
        cls, value: object, info: ValidationInfo, chooser: str, table: Mapping[str, Keys]
    ) -> None:
        """Refuse a key that doesn't go with what the field ``chooser`` says, or is missing."""
        choice = info.data.get(chooser)
        key = info.field_name or ""
        if choice is None:  # refused itself
            return
        if value and key not in table[choice]:
            users = [f'"{name}"' for name, keys in table.items() if key in keys]
            goes_with = f"it goes with {chooser} = {' or '.join(users)}"
            raise Fault(f'has no use with {chooser} = "{choice}"', f"remove it: {goes_with}")
        if not value and table[choice].get(key):
            raise Fault(f'is needed with {chooser} = "{choice}"', how_to_write(cls, key))

    @classmethod
    def _check_order(cls, value: int, info: ValidationInfo, longer: str) -> int:
        """Refuse a duration that is longer than the one in the field ``longer``."""
        limit = info.data.get(longer, value)
        if value > limit:
            raise Fault(
                f"is {format_duration(value)}, longer than {longer}, {format_duration(limit)}",
                f'write "{format_duration(limit)}" or less, or raise {longer}',
            )
        return value
