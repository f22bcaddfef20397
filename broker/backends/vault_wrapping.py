"""Response wrapping: what is put into Vault and comes out once, for whoever holds the token.

The broker may put in and not take out: what was wrapped is opened with the wrapping token itself.
Whether a token is there may be asked by anybody who has it, and doesn't spend it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.backends.vault_api import VaultForbidden, VaultGone
from broker.errors import BackendUnavailable
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.backends.vault_api import VaultApi

PATH: Final = "sys/wrapping/wrap"
"""Where what the broker wraps comes from, as Vault says of each token."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A wrapping token, as Vault made it; ``created_at`` is as Vault writes times (RFC 3339)."""

    token: Secret
    path: str
    created_at: str


class VaultWrapping:
    """Wraps, looks up and opens. Errors are those of ``Backend``; ``VaultGone``: it isn't there."""

    def __init__(self, api: VaultApi) -> None:
        """Wrap under the broker's own identity."""
        self._api = api

    async def wrap(self, content: Mapping[str, str], seconds: int) -> Wrapped:
        """Put something into a new wrapping token."""
        answer = await self._api.as_broker("post", PATH, content, wrap_s=seconds)
        about: Mapping[str, Any] = answer.get("wrap_info") or {}
        if not about.get("token"):
            raise BackendUnavailable("Vault answered without a wrapping token")
        return Wrapped(Secret(about["token"]), about["creation_path"], about["creation_time"])

    async def made_at(self, token: Secret) -> str:
        """Return the path at which a token's content was wrapped; it stays in there.

        Raises:
            VaultGone: it was opened, its time is up, or there never was such a token.
        """
        body = {"token": token.reveal()}
        answer = await self._api.as_holder(Secret(""), "post", "sys/wrapping/lookup", body)
        return str(answer["data"]["creation_path"])

    async def open(self, token: Secret) -> Mapping[str, Any]:
        """Take out what is in there; nobody else can after that.

        Raises:
            VaultGone: as ``made_at``.
        """
        try:
            answer = await self._api.as_holder(token, "post", "sys/wrapping/unwrap")
        except VaultForbidden as error:  # it isn't a wrapping token that lives
            raise VaultGone(error.detail) from error
        return answer.get("data") or {}
