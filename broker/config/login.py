"""``[login]``: where people log in who use the command line."""

from __future__ import annotations

from broker.config.fields import Many, Name, Text  # noqa: TC001  pydantic reads annotations
from broker.config.table import Table


class LoginSection(Table):
    """``[login]``: ``broker login`` asks ``issuer`` for ID tokens, one of ``identity.issuers``.

    Its audience is the client that people log in as: a public one, with PKCE. ``offline_access``
    among the ``scopes`` asks for a refresh token too.
    """

    issuer: Name
    scopes: Many[Text] = ("openid", "offline_access")
