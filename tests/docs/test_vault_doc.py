"""The table of secrets engines in the page is the one that the broker goes by."""

from __future__ import annotations

import re
from typing import Final

from broker.engines import ENGINES, Shape, engine_of
from tests.docs.blocks import DOCS

HEADING: Final = "## Engines\n"


def rows() -> list[list[str]]:
    """The cells of each row."""
    part = (DOCS / "backends/vault.md").read_text("utf-8").partition(HEADING)[2]
    table = part.partition("|---")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[1:]]


def words(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_has_each_row_as_it_is() -> None:
    found = rows()
    assert len(found) == len(ENGINES)
    for row, engine in zip(found, ENGINES, strict=True):
        name, paths, parameters, shape, revocable, confirmed_by, tested_against = row
        assert words(name) == [engine.name]
        assert words(paths)
        for path in words(paths):
            written = "mount/" + re.sub("[A-Z]+", "x", path)
            assert engine_of(written, engine.name) is engine, path
        assert set(words(parameters)) == engine.parameters.keys(), name
        assert set(re.findall(r"`(\w+)` \(needed\)", parameters)) == engine.required, name
        assert Shape(shape.replace(" ", "_")) is engine.shape, name
        assert words(revocable) == [engine.revocability], name
        assert confirmed_by
        assert tested_against


def test_each_page_that_the_table_links_to_is_about_that_engine() -> None:
    for name, *_ in rows():
        linked = re.search(r"\[`(\w+)`\]\((\S+)\)", name)
        if linked is not None:
            title = (DOCS / "backends" / linked[2]).read_text("utf-8").partition("\n")[0]
            assert f"`{linked[1]}`" in title, title
