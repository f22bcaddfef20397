"""What requests over the wire are made of: names, effects, and that unknown fields are refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
EffectLabel = Annotated[str, Field(max_length=100, pattern=r"^[a-z]+:[a-z0-9._-]+$")]


class Request(BaseModel):
    """A request body: strict types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
