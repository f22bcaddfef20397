"""The wheel, and the environment that has nothing but it and what it requires."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.packaging.bare import build_wheel, make_bare

if TYPE_CHECKING:
    from pathlib import Path

    from tests.packaging.bare import Bare


@pytest.fixture(scope="package")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="package")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return make_bare(tmp_path_factory.mktemp("env"), wheel)
