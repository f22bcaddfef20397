"""Style and script: from the package, and named by what is in them, so that browsers keep them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from broker.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_KEPT: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _Asset:
    content: bytes
    media_type: str
    version: str


class Assets:
    """All files of ``static/``, read once."""

    def __init__(self, base: str) -> None:
        """``base`` is the console's own path."""
        self._base = base
        self._files: dict[str, _Asset] = {}
        for file in (resources.files("broker.console") / "static").iterdir():
            suffix = file.name[file.name.rfind(".") :]
            if suffix in _TYPES:
                content = file.read_bytes()
                version = hashlib.sha256(content).hexdigest()[:12]
                self._files[file.name] = _Asset(content, _TYPES[suffix], version)

    def url(self, name: str) -> str:
        """Return where a file is."""
        return f"{self._base}/assets/{self._files[name].version}/{name}"

    def answer(self, version: str, name: str) -> Response:
        """Return a file; an old version's name gets the file of now, and isn't kept.

        Raises:
            NotFound: there is none.
        """
        asset = self._files.get(name)
        if asset is None:
            raise NotFound("There is no such file.")
        headers = {"Cache-Control": _KEPT} if version == asset.version else {}
        # As a header: Starlette would add a charset to the media type.
        return Response(asset.content, headers={**headers, "Content-Type": asset.media_type})
