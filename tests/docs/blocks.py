"""The configurations in the documents, for tests that load and use them.

A section has one ```toml block, which is complete but for what every broker needs: it is laid over
the engines' configuration, as the rest of that file.
"""

from __future__ import annotations

import copy
import re
import tomllib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE
from tests.world import EXCHANGE, JWT, World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

DOCS = Path(__file__).parents[2] / "docs"
Document = dict[str, Any]
_KEYS = {"discovery", "jwks_url", "jwks_file", "jwks_hosts"}
PLACES = {*_KEYS, "token_review", "ca_file", "token_file"}
"""What says where an issuer's keys or its API server are."""


class DocumentedWorld(World):
    """A replica with a documented configuration, and any token to present to it."""

    async def redeem(self, token: str, **fields: str) -> httpx2.Response:
        """Exchange a workload token for one of the broker's."""
        form = {
            "grant_type": EXCHANGE,
            "subject_token": token,
            "subject_token_type": JWT,
            "resource": self.config.broker.issuer,
            **fields,
        }
        return await self.http.post("/oauth/token", data=form)


def blocks(page: str) -> dict[str, Document]:
    """Return a page's configurations by the headings (``## …``) they stand under."""
    text = (DOCS / page).read_text("utf-8")
    found: dict[str, Document] = {}
    for part in re.split(r"(?m)^## ", text)[1:]:
        written = re.findall(r"(?ms)^```toml\n(.*?)^```", part)
        if written:
            heading = part.partition("\n")[0].strip()
            assert len(written) == 1, f"{page}: one configuration under {heading}"
            found[heading] = tomllib.loads(written[0])
    return found


def configuration(stack: DevStack, document: Mapping[str, Any], *, as_written: bool) -> Config:
    """Lay a documented configuration over the engines'.

    ``as_written`` is for those that name files which are only there in a real installation.
    """
    file = stack.data / FILE
    merged = laid_over(tomllib.loads(file.read_text("utf-8")), document)
    if merged["broker"]["issuer"].startswith("https:"):
        merged["console"].pop("link_issuer")  # links are for http on this machine
    text = tomli_w.dumps(merged)
    return parse_config(text, file, files_may_be_missing=as_written)


@asynccontextmanager
async def documented(
    stack: DevStack, document: Mapping[str, Any], **places: object
) -> AsyncGenerator[DocumentedWorld]:
    """Run a configuration that has one issuer, with its keys or API server at ``places``."""
    changed = copy.deepcopy(dict(document))
    (issuer,) = changed["identity"]["issuers"]
    for name in PLACES & set(issuer):
        del issuer[name]
    issuer.update(places)
    world = DocumentedWorld(stack.issuer, configuration(stack, changed, as_written=False))
    await world.app.connection.command("FLUSHALL")
    try:
        yield world
    finally:
        await world.close()


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Document:
    """Merge tables, and add to arrays."""
    result: Document = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = laid_over(cast("Document", old), cast("Document", value))
        elif isinstance(old, list) and isinstance(value, list):
            result[key] = [*cast("list[Any]", old), *cast("list[Any]", value)]
        else:
            result[key] = value
    return result
