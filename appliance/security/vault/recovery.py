"""Recovery shares: k of n people together have a key, fewer have nothing (docs/recovery-shares.md).

Shamir's secret sharing (1979) over GF(256) with the polynomial of AES, byte by byte. A share is printed as
base32 in groups of five, with 4 bytes of SHA-256 to find typing errors:

    version 1 | vault, 4 bytes | set, 4 bytes | k | number | 32 bytes | check, 4 bytes
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.core.errors import ConfigWrong

_VERSION, _MOST = 1, 16
_LENGTH = 1 + 4 + 4 + 1 + 1 + 32 + 4
_POLYNOMIAL = 0x11B


@dataclass(frozen=True, kw_only=True)
class Share:
    """One point of the polynomials: `number` is x, `points` the 32 values of y. `needed` of them open.

    `vault` and `group` say which vault's and which set's it is, so that old and new are not mixed.
    """

    vault: bytes
    group: bytes
    needed: int
    number: int
    points: bytes

    def __repr__(self) -> str:
        return f"Share(number={self.number})"


def split(secret: bytes, *, needed: int = 2, shares: int = 3, vault: str) -> list[Share]:
    """`shares` shares of a 32-byte secret, any `needed` of which give it back.

    Raises:
        ConfigWrong: not 2 <= needed <= shares <= 16.
    """
    if not 2 <= needed <= shares <= _MOST or len(secret) != 32:
        raise ConfigWrong("Shares are 2 to 16, and at least 2 of them are needed.", "Take 2 of 3.")
    above = [os.urandom(len(secret)) for _ in range(needed - 1)]
    group, site = os.urandom(4), bytes.fromhex(vault)[:4]
    made = []
    for number in range(1, shares + 1):
        points = bytes(
            _value([secret[at], *(coefficients[at] for coefficients in above)], number) for at in range(32)
        )
        made.append(Share(vault=site, group=group, needed=needed, number=number, points=points))
    return made


def join(shares: Sequence[Share], *, vault: str) -> bytes:
    """The secret of `shares`, of which at least the needed number must be there.

    Raises:
        ConfigWrong: too few, twice the same, or not of one set of this vault. A share that was altered with a
            right check gives a wrong secret, which opens nothing.
    """
    if not shares or any(share.vault != bytes.fromhex(vault)[:4] for share in shares):
        raise ConfigWrong("These are not shares of this site.", "Take the sheets with this site's name.")
    if len({(share.group, share.needed) for share in shares}) > 1:
        raise ConfigWrong("These shares were not made together.", "Take those of the newest set.")
    known = {share.number: share.points for share in shares}
    if len(known) < shares[0].needed:
        raise ConfigWrong(
            f"{len(known)} different shares are too few: {shares[0].needed} are needed.",
            "Ask another holder.",
        )
    numbers = sorted(known)[: shares[0].needed]
    return bytes(_at_zero([(number, known[number][at]) for number in numbers]) for at in range(32))


def to_text(share: Share) -> str:
    """A share as it is printed: 16 groups of five letters and digits."""
    head = bytes([_VERSION]) + share.vault + share.group + bytes([share.needed, share.number])
    body = head + share.points
    text = _letters(body + _check(body))
    return " ".join(text[at : at + 5] for at in range(0, len(text), 5))


def from_text(text: str) -> Share:
    """A share as typed in: case, spaces and hyphens do not matter; 0, 1 and 8 are read as O, I and B.

    Raises:
        ConfigWrong: a typing error, or no share.
    """
    letters = "".join(text.upper().replace("-", "").split()).translate(str.maketrans("018", "OIB"))
    try:
        whole = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        whole = b""
    body, check = whole[:-4], whole[-4:]
    if len(whole) != _LENGTH or body[0] != _VERSION or check != _check(body) or _letters(whole) != letters:
        raise ConfigWrong("This is not a share, or a letter of it is wrong.", "Compare it with the sheet.")
    needed, number = body[9], body[10]
    if not 2 <= needed <= _MOST or not 1 <= number <= _MOST:
        raise ConfigWrong("This is not a share, or a letter of it is wrong.", "Compare it with the sheet.")
    return Share(vault=body[1:5], group=body[5:9], needed=needed, number=number, points=body[11:])


def _letters(content: bytes) -> str:
    return base64.b32encode(content).decode().rstrip("=")


def _check(body: bytes) -> bytes:
    return hashlib.sha256(b"cloister/recovery\0" + body).digest()[:4]


def times(a: int, b: int) -> int:
    """The product in GF(256), without branches or tables that depend on the factors."""
    product = 0
    for bit in range(8):
        product ^= -((b >> bit) & 1) & a
        a = (a << 1) ^ (-(a >> 7) & _POLYNOMIAL)
    return product


def inverse(a: int) -> int:
    """a^254, which is 1/a for every a but 0."""
    result = 1
    for bit in (1, 1, 1, 1, 1, 1, 1, 0):
        result = times(result, result)
        if bit:
            result = times(result, a)
    return result


def _value(coefficients: Sequence[int], x: int) -> int:
    """The polynomial at x; the constant comes first."""
    value = 0
    for coefficient in reversed(coefficients):
        value = times(value, x) ^ coefficient
    return value


def _at_zero(points: Sequence[tuple[int, int]]) -> int:
    """Lagrange's interpolation at 0."""
    value = 0
    for x, y in points:
        weight = 1
        for other, _ in points:
            if other != x:
                weight = times(weight, times(other, inverse(other ^ x)))
        value ^= times(y, weight)
    return value
