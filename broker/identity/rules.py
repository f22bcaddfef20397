"""Rules on claims: what a proof must say before it is taken for a principal's, or taken at all.

A rule is written as a value, a list of values, or a pattern::

    repository_id = "74"                          exactly this
    ref           = ["refs/heads/main", "v1"]     one of these
    environment   = { match = "prod(-[a-z]+)?" }  the whole value matches

The name of a claim is a JSON Pointer (RFC 6901) without its first slash, so that
``kubernetes.io/namespace`` leads into an object; ``~1`` stands for a slash in a name, ``~0`` for a
tilde. It doesn't lead into lists: a list holds a rule if one of its elements does. What a claim
doesn't say, or says in another type, is a no.

Patterns are those of Rust's ``regex``, which takes time in proportion to the text and no more:
whoever can name a branch decides what a pattern is held against. It has no look-around and no
back-references.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self, cast

from pydantic_core import SchemaError, SchemaValidator, core_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.identity.models import Identity

Scalar = str | int | bool
MAX_VALUES: Final = 100
MAX_CHARS: Final = 512
"""Of a pattern, and of a claim that one is held against."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one claim must be: one of ``values``, or matched as a whole by ``pattern``."""

    values: tuple[Scalar, ...] = ()
    pattern: str | None = None

    @classmethod
    def parse(cls, written: object) -> Self:
        """Read a rule as it stands in a configuration or a request.

        Raises:
            ValueError: it isn't one; the message says what to write.
        """
        if isinstance(written, dict):
            table = cast("dict[str, Any]", written)
            if set(table) == {"match"} and isinstance(table["match"], str):
                return cls(pattern=_checked(table["match"]))
            raise ValueError('a table here is { match = "pattern" } and nothing else')
        listed = cast("list[object]", written) if isinstance(written, list) else [written]
        values = tuple(value for value in listed if isinstance(value, Scalar) and value != "")
        if not 0 < len(values) == len(listed) <= MAX_VALUES:
            raise ValueError(
                f"write a text, a whole number or a boolean, a list of 1 to {MAX_VALUES} of "
                'them, or { match = "pattern" }'
            )
        return cls(values=values)

    @property
    def written(self) -> Scalar | list[Scalar] | dict[str, str]:
        """The rule as ``parse`` reads it."""
        if self.pattern is not None:
            return {"match": self.pattern}
        return self.values[0] if len(self.values) == 1 else list(self.values)

    def holds(self, value: object) -> bool:
        """Say whether a claim's value is what the rule asks; of a list, whether one element is."""
        candidates = cast("list[object]", value) if isinstance(value, list) else [value]
        return any(self._fits(candidate) for candidate in candidates)

    def _fits(self, value: object) -> bool:
        if self.pattern is not None:
            if not isinstance(value, str) or len(value) > MAX_CHARS:
                return False
            return _compiled(self.pattern).isinstance_python(value)
        # Types too: to Python True is 1, and 1 is 1.0.
        return any(type(value) is type(wanted) and value == wanted for wanted in self.values)


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """Which proved identities are a principal's: those of one issuer that all rules hold for.

    ``subject`` is None where ``claims`` alone decide; one of the two is always there.
    """

    issuer_name: str
    subject: Rule | None = None
    claims: Mapping[str, Rule] = field(default_factory=dict[str, Rule])

    def matches(self, identity: Identity) -> bool:
        """Say whether an identity is the principal's."""
        if identity.issuer_name != self.issuer_name or not (self.subject or self.claims):
            return False
        if self.subject is not None and not self.subject.holds(identity.subject):
            return False
        return unmet(self.claims, identity.claims) is None

    def may_be(self, person: str) -> bool:
        """Say whether a person, written ``ISSUER:SUBJECT``, is the principal by all that says.

        Where claims alone decide that can't be known from a subject.
        """
        issuer, _, subject = person.partition(":")
        rule = self.subject
        return rule is not None and issuer == self.issuer_name and rule.holds(subject)


def unmet(rules: Mapping[str, Rule], claims: Mapping[str, Any]) -> str | None:
    """Return the name of the first rule that doesn't hold for some claims, or None."""
    for name, rule in rules.items():
        if not rule.holds(look_up(claims, name)):
            return name
    return None


def look_up(claims: Mapping[str, Any], pointer: str) -> object:
    """Follow a claim's name into nested objects; None where it leads nowhere."""
    value: object = claims
    for part in pointer.split("/"):
        if not isinstance(value, dict):
            return None
        name = part.replace("~1", "/").replace("~0", "~")
        value = cast("dict[str, object]", value).get(name)
    return value


def _checked(pattern: str) -> str:
    try:
        if 0 < len(pattern) <= MAX_CHARS:
            pattern.encode()  # a lone surrogate is no text
            # By itself too: ``a)|(?:b`` becomes whole only by what is put around it.
            _validator(pattern)
            _compiled(pattern)
            return pattern
    except (SchemaError, UnicodeError):
        pass
    raise ValueError(
        f"is not a pattern of 1 to {MAX_CHARS} characters; write a regular expression without "
        "look-around and back-references"
    )


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> SchemaValidator:
    """Compile a pattern for the whole of a text: ``^a|b$`` matches far more than it seems to."""
    return _validator(rf"\A(?:{pattern})\z")


def _validator(pattern: str) -> SchemaValidator:
    schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True)
    return SchemaValidator(schema)
