"""However a Secret is shown, stored or sent, what it holds stays in it."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from broker.secret import REDACTED, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CANARY = "canary-3f9c"


@pytest.fixture
def secret() -> Secret:
    return Secret(CANARY)


def _logged(secret: Secret) -> str:
    stream = io.StringIO()
    logger = logging.Logger("test")  # noqa: LOG001  one of our own, that nothing else sees
    logger.addHandler(logging.StreamHandler(stream))
    logger.warning("%s %r", secret, secret)
    return stream.getvalue()


def _raised(secret: Secret) -> str:
    return "".join(traceback.format_exception(ValueError(secret)))


@dataclasses.dataclass
class Holder:
    inside: Secret


SHOWN: dict[str, Callable[[Secret], object]] = {
    "str": str,
    "repr": repr,
    "format": format,
    "format with a width": lambda secret: f"{secret:>40}",
    "f-string": lambda secret: f"{secret} {secret!r} {secret!s} {secret!a}",
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031  what is tested
    "str.format": lambda secret: "{} {0!r}".replace("{}", "{0}").format(secret),
    "in a list": lambda secret: str([secret]),
    "in a dict": lambda secret: repr({"key": secret}),
    "in a dataclass": lambda secret: repr(Holder(secret)),
    "pprint": lambda secret: pprint.pformat({"key": secret}),
    "logging": _logged,
    "a traceback": _raised,
    "json with default=str": lambda secret: json.dumps({"key": secret}, default=str),
}
REFUSED: Mapping[str, Callable[[Any], object]] = {
    "json": json.dumps,
    "vars": vars,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "hash": hash,
    "iteration": iter,
    "length": len,
}


@pytest.mark.parametrize("way", list(SHOWN))
def test_it_is_shown_redacted(secret: Secret, way: str) -> None:
    text = str(SHOWN[way](secret))
    assert CANARY not in text
    assert REDACTED in text


@pytest.mark.parametrize("way", list(REFUSED))
def test_it_is_never_taken_apart(secret: Secret, way: str) -> None:
    with pytest.raises((TypeError, AttributeError)) as refused:
        REFUSED[way](secret)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_never_pickled(secret: Secret, protocol: int) -> None:
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps({"inside": Holder(secret)}, protocol)


def test_what_holds_it_is_not_copied_into_a_dict(secret: Secret) -> None:
    with pytest.raises(TypeError, match="never pickled or copied"):
        dataclasses.asdict(Holder(secret))


def test_it_takes_no_new_attributes(secret: Secret) -> None:
    with pytest.raises(AttributeError):
        setattr(secret, "more", 1)  # noqa: B010  pyright knows better


def test_it_is_revealed_on_purpose_only(secret: Secret) -> None:
    assert secret.reveal() == CANARY
    assert CANARY not in str(dir(secret))


def test_it_can_not_be_compared_with_a_guess(secret: Secret) -> None:
    assert secret != CANARY
    assert secret != Secret(CANARY)
