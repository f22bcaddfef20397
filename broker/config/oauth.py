"""``[oauth]``: how callers prove themselves at the token endpoint, and hold on to their tokens."""

from __future__ import annotations

from typing import Annotated

from broker.config.fields import Count, WholeSeconds, at_most
from broker.config.table import Table, written


class OAuthSection(Table):
    """``[oauth]``: DPoP (RFC 9449), and how often each principal may ask for a token.

    ``dpop_nonce`` wants a nonce of ours in each proof; ``dpop_window`` is how far from now, either
    way, one may have been made. ``rate`` requests may come in each ``rate_window``.
    """

    dpop_nonce: bool = True
    dpop_window: Annotated[WholeSeconds, at_most("5m")] = written("60s")
    rate: Count = 1200
    rate_window: Annotated[WholeSeconds, at_most("1h")] = written("1m")
