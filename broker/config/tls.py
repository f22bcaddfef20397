"""How the broker is reached: its own TLS, and proxies that end TLS for it."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field

from broker.config.fields import ExistingFile  # noqa: TC001  pydantic reads the annotations below
from broker.config.problems import Fault, shown, type_word
from broker.config.table import Table


def _network(value: object) -> IPv4Network | IPv6Network:
    such = 'write an address or a network, such as "10.0.3.7" or "10.0.0.0/8"'
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise Fault(f"must be an address in quotes, not {type_word(value)}", such)
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise Fault(f"{shown(value)} is not an address or a network", such) from None
    if network.prefixlen == 0:
        raise Fault(
            f"{shown(value)} is everybody, who could then name any certificate as theirs",
            "name the proxies' own addresses",
        )
    if str(network.network_address) != value.partition("/")[0].lower() and "/" in value:
        raise Fault(f"{shown(value)} is an address inside a network", f'write "{network}"')
    return network


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
"""One address, or a network in CIDR notation."""


class TlsSection(Table):
    """``[tls]``: the broker serves https itself. The files are read again when they change.

    ``client_certificates`` asks clients for one, verified against the X.509 authorities of the
    configured trust domains; a client may have none.
    """

    cert_file: ExistingFile = Field(examples=['"tls/broker.crt"'])
    key_file: ExistingFile = Field(examples=['"tls/broker.key"'])
    client_certificates: bool = False
