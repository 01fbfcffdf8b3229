"""Shares of a 32-byte secret, any `needed` of which give it back and fewer of which say nothing.

Shamir (1979) over the integers modulo 2**255 - 19, in which an X25519 secret fits as it is; numbers travel as
32 bytes, little-endian. The arithmetic of recovery shares (GF(256), byte by byte) ends at 16 shares and would
take a second for a hundred sites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

PRIME = 2**255 - 19
Random = Callable[[int], bytes]


def element(random: Random) -> int:
    """A uniform number below the prime."""
    while True:
        drawn = int.from_bytes(random(32), "little") & (1 << 255) - 1
        if drawn < PRIME:
            return drawn


def deal(secret: bytes, places: Sequence[int], *, needed: int, random: Random) -> dict[int, bytes]:
    """The share of each place (1 .. 255).

    Raises:
        ValueError: the secret is not below the prime, or the places are wrong or fewer than `needed`.
    """
    constant = int.from_bytes(secret, "little")
    if len(secret) != 32 or constant >= PRIME:
        raise ValueError("no element of the field")
    if not 1 <= needed <= len(set(places)) == len(places) or not all(0 < place < 256 for place in places):
        raise ValueError("places cannot be used")
    falling = [element(random) for _ in range(needed - 1)] + [constant]
    shares = {}
    for place in places:
        value = 0
        for coefficient in falling:
            value = (value * place + coefficient) % PRIME
        shares[place] = value.to_bytes(32, "little")
    return shares


def weights(places: Sequence[int]) -> dict[int, int]:
    """Lagrange's weights at 0, for joining many secrets from the same places."""
    found = {}
    for place in places:
        above = below = 1
        for other in places:
            if other != place:
                above = above * other % PRIME
                below = below * (other - place) % PRIME
        found[place] = above * pow(below, -1, PRIME) % PRIME
    return found


def join(shares: Mapping[int, bytes], at_zero: Mapping[int, int]) -> bytes:
    """The secret of the shares whose places have a weight; wrong shares give a wrong one."""
    total = sum(int.from_bytes(shares[place], "little") * weight for place, weight in at_zero.items())
    return (total % PRIME).to_bytes(32, "little")
