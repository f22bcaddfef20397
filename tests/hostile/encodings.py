"""How a token is written: base64url, JSON, segments, other serialisations, size."""

from __future__ import annotations

import json
from base64 import standard_b64encode, urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final

from tests.hostile.vectors import FORM, Good, Vector, signed, vector
from tests.issuers import segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MAX_CHARS: Final = 16 * 1024


def base64url(good: Good) -> Iterator[Vector]:
    """RFC 7515 section 2: one way to write each segment, so one way to write each token.

    Signed as written, so that a reader who forgives finds a good signature.
    """
    for length, base in enumerate(_of_all_lengths(good)):
        head, payload, signature = base.parts()
        for name, spoil in _SPELLINGS.items():
            for which in range(3):
                parts = [head, payload, signature]
                if (spoilt := spoil(parts[which])) == parts[which]:
                    continue
                parts[which] = spoilt
                token = ".".join(parts) if which == 2 else signed(base.key, *parts[:2])
                yield vector(f"{name}-{which}.{length}", "", token, FORM)
    # 0xfb 0xff: the two characters in which the alphabets differ.
    head, payload, _ = good.saying(unheard_of="?\u00ff\u07ff>>>???~~~" * 3).parts()
    other = payload.translate(str.maketrans("-_", "+/"))
    raw = urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    for name, text in (("alphabet", other), ("standard", standard_b64encode(raw).decode())):
        if text != payload:
            yield vector(name, "of RFC 4648 section 4", signed(good.key, head, text), FORM)


def segments(good: Good) -> Iterator[Vector]:
    """RFC 7515 section 7.1: three segments, and nothing around them."""
    head, payload, signature = good.parts()
    token = good.token
    found = {
        "empty": "",
        "dots": "..",
        "one": head,
        "two": f"{head}.{payload}",
        "four": f"{token}.{signature}",
        "five": f"{token}.{payload}.{signature}",
        "no-header": f".{payload}.{signature}",
        "no-payload": f"{head}..{signature}",
        "signature-alone": f"..{signature}",
        "dot-in-front": f".{token}",
        "dot-behind": f"{token}.",
        "dots-doubled": token.replace(".", ".."),
        "space-in-front": f" {token}",
        "space-behind": f"{token} ",
        "newline-behind": f"{token}\n",
        "nul-behind": f"{token}\0",
        "bom": f"\ufeff{token}",
        "bearer": f"Bearer {token}",
        "quoted": f'"{token}"',
        "twice": f"{token},{token}",
        "twice-spaced": f"{token} {token}",
        "percent": token.replace(".", "%2E"),
        "wide-dots": token.replace(".", "\uff0e"),
        "commas": token.replace(".", ","),
        "wide-letter": chr(ord(token[0]) + 0xFEE0) + token[1:],
        "cyrillic": token.replace("e", "\u0435", 1),
        "surrogate": "\ud800" + token[1:],
        "sd-jwt": f"{token}~",
        "jwe": f"{head}.{payload}.{signature}.{payload}.{signature}",
    }
    for name, text in found.items():
        yield vector(name, "", text, FORM)
    for name, text in _serialised(head, payload, signature).items():
        yield vector(name, "RFC 7515 section 7.2", text, FORM)
        yield vector(f"{name}-encoded", "as one segment", segment(text.encode()), FORM)
    nothing = signed(good.key, head, "")
    yield vector("no-payload-signed", "detached (RFC 7515 appendix F)", nothing, FORM)
    yield vector("no-header-signed", "", signed(good.key, "", payload), FORM)


def json_texts(good: Good) -> Iterator[Vector]:
    """RFC 8725 sections 3.7 and 2.4, RFC 7493: JSON that two readers may take for two things."""
    for which, text in (("header", json.dumps(good.head)), ("payload", json.dumps(good.claims))):
        for name, spoilt in _spoilt(text).items():
            token = good.sign(spoilt) if which == "header" else good.sign(claims=spoilt)
            yield vector(f"{which}-{name}", "", token, FORM)
        for name, deep in _deep(text).items():
            token = good.sign(deep) if which == "header" else good.sign(claims=deep)
            yield vector(
                f"{which}-{name}", "how deep is too deep is the parser's", token, valid=None
            )
        for name, fine in _fine(text).items():
            token = good.sign(fine) if which == "header" else good.sign(claims=fine)
            yield vector(f"{which}-{name}", "", token, valid=True)
        for value in (b"null", b"true", b"7", b'"x"', b"[]", b"[{}]", b"", b" ", b"{"):
            token = good.sign(value) if which == "header" else good.sign(claims=value)
            yield vector(f"{which}={value.decode()}", "no JSON object", token, FORM)


def sizes(good: Good) -> Iterator[Vector]:
    """What is longer than anybody needs is not read at all."""
    room = MAX_CHARS - len(good.with_claims(unheard_of=""))
    for pad in range(room * 3 // 4, room * 3 // 4 - 8, -1):
        token = good.with_claims(unheard_of="x" * pad)
        if len(token) <= MAX_CHARS:
            yield vector(str(len(token)), "as long as may be", token, valid=True)
            break
    token = good.with_claims(unheard_of="x" * MAX_CHARS)
    yield vector("long-payload", "", token, FORM)
    yield vector("long-header", "", good.with_header(unheard_of="x" * MAX_CHARS), FORM)
    yield vector("megabytes", "", good.token + "A" * 3_000_000, FORM)
    yield vector("dots", "", "." * 3_000_000, FORM)
    head, payload, _ = good.parts()
    yield vector("long-signature", "", f"{head}.{payload}.{'A' * MAX_CHARS}", FORM)


def _serialised(head: str, payload: str, signature: str) -> dict[str, str]:
    one = {"protected": head, "signature": signature}
    return {
        "flattened": json.dumps({"payload": payload, **one}),
        "general": json.dumps({"payload": payload, "signatures": [one]}),
        "general-two": json.dumps({"payload": payload, "signatures": [one, one]}),
    }


def _spoilt(text: str) -> dict[str, bytes]:
    """Texts that mean nothing, or one thing to one and another to others."""
    bare, raw = text[1:-1], text.encode()

    def also(member: str) -> bytes:
        return f"{{{bare},{member}}}".encode()

    first = json.dumps(next(iter(json.loads(text))))
    return {
        "doubled": f"{{{bare},{bare}}}".encode(),
        "doubled-first": f'{{{first}:"x",{bare}}}'.encode(),
        "doubled-last": also(f'{first}:"x"'),
        "doubled-escaped": also(f'"\\u{ord(first[1]):04x}{first[2:]}:"x"'),
        "doubled-unknown": also('"z":1,"z":1'),
        "doubled-within": also('"z":{"y":[{"x":1,"x":2}]}'),
        "nan": also('"z":NaN'),
        "nan-within": also('"z":[{"y":NaN}]'),
        "infinity": also('"z":Infinity'),
        "minus-infinity": also('"z":-Infinity'),
        "beyond-doubles": also('"z":1e999'),
        "minus-beyond-doubles": also('"z":[-1e999]'),
        "5000-digits": also('"z":' + "9" * 5000),
        "open-lists": also('"z":' + "[" * 9000),
        "surrogate-name": also('"\\ud800":1'),
        "surrogate-value": also('"z":"\\udfff"'),
        "surrogates-swapped": also('"z":"\\udc00\\ud800"'),
        "surrogate-within": also('"z":[{"y":"a\\ud83d"}]'),
        "surrogate-bytes": also('"z":"?"').replace(b"?", b"\xed\xa0\x80"),
        "no-utf-8": also('"z":"?"').replace(b"?", b"\xff"),
        "cut-utf-8": also('"z":"?"').replace(b"?", b"\xe2\x82"),
        "overlong-utf-8": also('"z":"?"').replace(b"?", b"\xc0\xaf"),
        "beyond-unicode": also('"z":"?"').replace(b"?", b"\xf4\x90\x80\x80"),
        "bom": b"\xef\xbb\xbf" + raw,
        "utf-16": text.encode("utf-16"),
        "utf-16-be": text.encode("utf-16-be"),
        "utf-32": text.encode("utf-32"),
        "single-quotes": text.replace('"', "'").encode(),
        "trailing-comma": f"{{{bare},}}".encode(),
        "comment": f"{{/**/{bare}}}".encode(),
        "hash-comment": f"{{{bare}\n#\n}}".encode(),
        "no-quotes": f"{{{bare},z:1}}".encode(),
        "control": also('"z":"\x00"'),
        "newline-in-text": also('"z":"\n"'),
        "octal": also('"z":01'),
        "hex": also('"z":0x1'),
        "plus": also('"z":+1'),
        "point": also('"z":1.'),
        "wide-digits": also('"z":\uff11'),
        "escape": also('"z":"\\x41"'),
        "twice": raw * 2,
        "rest": raw + b"x",
        "nul": raw + b"\0",
        "form-feed": raw + b"\x0c",
        "list": b"[" + raw + b"]",
        "text": json.dumps(text).encode(),
        "cut": raw[:-1],
        "cbor": b"\xa1\x63alg\x65ES256",
    }


def _deep(text: str) -> dict[str, bytes]:
    """Nested further than anybody needs."""
    bare = text[1:-1]
    found = {
        f"{levels}-{name}": f'{{{bare},"z":{start * levels}0{end * levels}}}'
        for levels in (100, 900, 1500, 4500)
        for name, start, end in (("lists", "[", "]"), ("objects", '{"":', "}"))
    }
    return {name: value.encode() for name, value in found.items() if len(value) < MAX_CHARS // 2}


def _fine(text: str) -> dict[str, bytes]:
    """The same said in another way, or with more that nobody reads."""
    bare = text[1:-1]
    found: dict[str, Any] = {
        "white-space": f" \t\r\n{{\n{bare}\t}} \n",
        "escaped": text.replace("a", "\\u0061"),
        "emoji": f'{{{bare},"z":"\\ud83d\\ude00","":null}}',
        "proto": f'{{{bare},"__proto__":{{"x":1}},"constructor":1}}',
        "big": f'{{{bare},"z":{"9" * 400},"y":-0.0,"x":1e-999,"w":1e308}}',
        "deep": f'{{{bare},"z":{"[" * 50}{"]" * 50}}}',
    }
    return {name: value.encode() for name, value in found.items()}


def _of_all_lengths(good: Good) -> Iterator[Good]:
    """Tokens whose payload and header end with one, two and three characters of a group."""
    for pad in range(3):
        yield Good(
            good.key,
            {**good.header, "unheard_of": "x" * pad},
            {**good.claims, "unheard_of": "x" * pad},
        )


def _stray_bits(part: str) -> str:
    """Set bits of the last character that mean nothing."""
    if len(part) % 4 == 0:
        return part
    return part[:-1] + _ALPHABET[_ALPHABET.index(part[-1]) | 1]


def _padded(part: str) -> str:
    return urlsafe_b64encode(urlsafe_b64decode(part + "=" * (-len(part) % 4))).decode()


_SPELLINGS: Final[dict[str, Callable[[str], str]]] = {
    "padded": _padded,
    "padded-too-far": lambda part: part + "====",
    "one-equals": lambda part: part + "=",
    "stray-bits": _stray_bits,
    "space": lambda part: f"{part[:4]} {part[4:]}",
    "newline": lambda part: f"{part[:4]}\n{part[4:]}",
    "crlf": lambda part: f"{part[:4]}\r\n{part[4:]}",
    "tab-behind": lambda part: f"{part}\t",
    "nul": lambda part: f"{part[:4]}\0{part[4:]}",
    "foreign": lambda part: f"{part[:4]}!{part[4:]}",
    "wide": lambda part: f"{part[:4]}\u00ad{part[4:]}",
    "padding-inside": lambda part: f"{part[:4]}={part[4:]}",
    "one-more": lambda part: part + "A" * (5 - len(part) % 4),
}
