"""What no single table can know: names that repeat, and names that lead nowhere.

This looks at the file as TOML yields it, not at the models, so that a fault in one entry doesn't
hide those of another, nor make a reference to it look wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from broker.catalog import TOOL
from broker.config import fields
from broker.config.backends import BACKEND_KEYS
from broker.config.problems import Fault, Loc, did_you_mean, dotted, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Raw = dict[str, Any]
Entries = list[tuple[Loc, Raw]]

_ISSUERS: Final = ("identity", "issuers")
_TRUST_DOMAINS: Final = ("identity", "trust_domains")
_KINDS: Final = {
    "issuer": ("issuer", dotted(_ISSUERS)),
    "identity": ("issuer", dotted(_ISSUERS)),
    "capabilities": ("capability", "capabilities"),
    "groups": ("group of approvers", "approvals.groups"),
    "escalate_to": ("group of approvers", "approvals.groups"),
    "members": ("operator", "principals"),
}
"""What a key that names another entry names, and where such entries are."""


def reference_faults(data: Raw) -> Iterator[tuple[Loc, Fault]]:
    """Check every name and identifier against the rest of the file."""
    issuers = _entries(data, *_ISSUERS)
    principals = _entries(data, "principals")
    capabilities = _entries(data, "capabilities")
    domains = _entries(data, *_TRUST_DOMAINS)
    sinks = _entries(data, "audit", "sinks")
    watched = _entries(data, "policy", "observe")
    groups = _entries(data, "approvals", "groups")
    channels = _entries(data, "channels")
    targets = _entries(data, "targets")
    for entries in (
        [*issuers, *domains],
        principals,
        capabilities,
        sinks,
        watched,
        groups,
        channels,
        targets,
    ):
        yield from _repeats(entries, ("name",))
    yield from _same_tool(capabilities)
    yield from _repeats(issuers, ("issuer",))
    yield from _repeats(domains, ("trust_domain",))
    yield from _repeats(principals, ("identity", "subject"), ("identity", "issuer"))
    yield from _repeats(principals, ("resource",))
    yield from _own_issuer(data, issuers, "issuer")
    yield from _own_issuer(data, [*principals, *capabilities], "resource")
    for loc, principal in principals:
        yield from _unknown(loc, principal, ("identity", "issuer"), _names([*issuers, *domains]))
        yield from _foreign_workload(loc, principal, domains)
    operators = [p for p in principals if p[1].get("role") == "operator"]
    for loc, group in groups:
        yield from _unknown(loc, group, ("escalate_to",), _names(groups))
    if isinstance(login := data.get("login"), dict):
        yield from _unknown(("login",), cast("Raw", login), ("issuer",), _names(issuers))
    yield from _console(data, issuers)
    yield from _unused_quotas(data, capabilities)
    yield from _backends_of_others(data)
    yield from _unknown_in([*principals, *targets], "capabilities", _names(capabilities))
    yield from _unknown_in(groups, "members", _names(operators))
    yield from _unknown_in(channels, "groups", _names(groups))
    for loc, capability in capabilities:
        if capability.get("backend") == "vault" and "vault" not in data:
            yield (
                (*loc, "backend"),
                Fault("needs a [vault] section", "add [vault] with address and auth"),
            )


def _console(data: Raw, issuers: Entries) -> Iterator[tuple[Loc, Fault]]:
    section = _table(data, "console")
    for key in ("issuer", "link_issuer"):
        name = section.get(key)
        if isinstance(name, str) and name not in _names(issuers):
            fault = Fault(
                f"there is no issuer {shown(name)}",
                did_you_mean(name, _names(issuers), "names of [[identity.issuers]]"),
            )
            yield ("console", key), fault
    for _, entry in issuers:
        same = entry.get("audience") == section.get("client_id")
        if same and isinstance(section.get("issuer"), str):
            # An ID token of the console's would prove its owner at the token endpoint as well.
            yield (
                ("console", "client_id"),
                Fault(
                    f"is the audience of issuer {shown(str(entry.get('name')))} as well",
                    "register a client of its own for the console",
                ),
            )


def _unused_quotas(data: Raw, capabilities: Entries) -> Iterator[tuple[Loc, Fault]]:
    backends = {str(c.get("backend")) for _, c in capabilities if c.get("backend") != TOOL}
    for name in _table(data, "quotas", "backends"):
        if name not in backends:
            those = did_you_mean(name, sorted(backends), "those that have any")
            yield ("quotas", "backends", name), Fault("is the backend of no capability", those)


def backend_names(data: Raw) -> tuple[str, ...]:
    """Return the names of the backends that have a table of their own."""
    tables = data.get("backends")
    return tuple(cast("Raw", tables)) if isinstance(tables, dict) else ()


def _backends_of_others(data: Raw) -> Iterator[tuple[Loc, Fault]]:
    for name in backend_names(data):
        if name in BACKEND_KEYS:
            fault = Fault("is a backend of the broker's own", "give this one another name")
            yield ("backends", name), fault
        try:
            cast("Callable[[str], str]", fields.name.func)(name)
        except Fault as fault:
            yield ("backends", name), fault


def _entries(data: Raw, *way: str) -> Entries:
    """Return the tables of an array of tables, or as many as there are."""
    items = enumerate(_list(_dig(data, way)))
    return [((*way, index), item) for index, item in items if isinstance(item, dict)]


def _table(data: Raw, *way: str) -> Raw:
    found = _dig(data, way)
    return cast("Raw", found) if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:  # noqa: ANN401  whatever TOML yields
    return cast("list[Any]", value) if isinstance(value, list) else []


def _dig(value: Any, way: Sequence[str | int]) -> Any:  # noqa: ANN401  whatever TOML yields
    """Follow keys and indexes; None where they lead nowhere."""
    for part in way:
        if isinstance(part, int):
            value = value[part]
        else:
            value = cast("Raw", value).get(part) if isinstance(value, dict) else None
    return value


def _names(entries: Entries) -> list[str]:
    names = [name for _, entry in entries if isinstance(name := entry.get("name"), str)]
    return list(dict.fromkeys(names))


def _repeats(entries: Entries, *ways: Loc) -> Iterator[tuple[Loc, Fault]]:
    """Report entries that have the same values as one before them; the first way is the place."""
    first: dict[tuple[str, ...], Loc] = {}
    for loc, entry in entries:
        values = tuple(_dig(entry, way) for way in ways)
        if not all(isinstance(value, str) for value in values):
            continue
        earlier = first.setdefault(values, loc)
        if earlier != loc:
            what = " and ".join(dotted(way) for way in ways)
            yield (
                (*loc, *ways[0]),
                Fault(
                    f"{dotted(earlier)} has the same {what}",
                    "each of them needs its own: change or remove one",
                ),
            )


def _same_tool(capabilities: Entries) -> Iterator[tuple[Loc, Fault]]:
    """Report tools that callers call the same: which is meant could not be known."""
    called: dict[str, Loc] = {}
    for loc, entry in capabilities:
        name = entry.get("tool", entry.get("name"))
        if entry.get("backend") != TOOL or not isinstance(name, str):
            continue
        earlier = called.setdefault(name, loc)
        if earlier != loc and "tool" in entry:
            yield (
                (*loc, "tool"),
                Fault(
                    f"{dotted(earlier)} is called {shown(name)} as well",
                    "each tool needs a name of its own: change or remove one",
                ),
            )


def _unknown(loc: Loc, entry: Raw, way: Loc, known: list[str]) -> Iterator[tuple[Loc, Fault]]:
    name = _dig(entry, way)
    if isinstance(name, str) and name not in known:
        what, section = _KINDS[str(way[0])]
        yield (
            (*loc, *way),
            Fault(
                f"there is no {what} {shown(name)}",
                did_you_mean(name, known, f"names of [[{section}]]"),
            ),
        )


def _unknown_in(entries: Entries, key: str, known: list[str]) -> Iterator[tuple[Loc, Fault]]:
    for loc, entry in entries:
        for index in range(len(_list(entry.get(key)))):
            yield from _unknown(loc, entry, (key, index), known)


def _foreign_workload(loc: Loc, principal: Raw, domains: Entries) -> Iterator[tuple[Loc, Fault]]:
    """A trust domain names its own workloads only: another subject would never be proved."""
    issuer, subject = (_dig(principal, ("identity", key)) for key in ("issuer", "subject"))
    for _, domain in domains:
        start = f"spiffe://{domain.get('trust_domain')}/"
        if domain.get("name") != issuer or not isinstance(subject, str):
            continue
        if not subject.startswith(start):
            yield (
                (*loc, "identity", "subject"),
                Fault(
                    f"{shown(subject)} is not a workload of trust domain {issuer}",
                    f'write its whole SPIFFE ID, such as "{start}agent/report-writer"',
                ),
            )


def _own_issuer(data: Raw, entries: Entries, key: str) -> Iterator[tuple[Loc, Fault]]:
    """Nobody else is the broker: its own tokens prove no workload, nor are they for others."""
    own = _dig(data, ("broker", "issuer"))
    for loc, entry in entries:
        if isinstance(own, str) and own in (entry.get(key), *_list(entry.get(key))):
            yield (
                (*loc, key),
                Fault("is the broker's own issuer URL", "write the URL of the other party"),
            )
