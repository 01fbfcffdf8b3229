"""The gate that every update passes before anything is averaged.

One bad update makes a stock average NaN, or ends its run. Here a bad one is refused with a code, its site is
named, and the round goes on. The order is: who, then whether it is theirs, then what it is about, then what
is in it; nothing is unpacked before the signature holds, and no length is taken from the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from federated.layout import Array, Layout
from federated.packing import BLOCK, Packing, packed_size, part, unpack_part
from federated.update import LONGEST_STATEMENT, Form, Statement, opened_update, whole

Code = Literal[
    "malformed", "stranger", "out", "forged", "federation", "round", "parent", "packing", "second", "length",
    "body", "units", "values", "norm", "masks",
]  # fmt: skip

WORDS: dict[Code, tuple[str, str]] = {
    "malformed": ("it is no update, or was cut short", "send it again"),
    "stranger": ("no site of this name is in the federation", "enrol it, or carry it to its own coordinator"),
    "out": ("the site has left, was dropped or revoked", "enrol it again with new keys"),
    "forged": ("the signature is not this site's", "look at who is between the site and here"),
    "federation": ("it is for other settings or another base", "join again with the newest kit"),
    "round": ("it is of another round", "the site takes part in the next one"),
    "parent": ("it began with another adapter", "the site must fetch this round's adapter"),
    "packing": ("it is packed otherwise than agreed", "join again with the newest kit"),
    "second": ("the site has sent another update in this round", "the first one counts"),
    "length": ("its arrays have other shapes", "look at base and versions of the site"),
    "body": ("its numbers are not the signed ones", "send it again"),
    "units": ("it claims more patients than the site registered", "enrol the site's new number"),
    "values": ("it holds infinite values or no numbers", "look at the training at the site"),
    "norm": ("it is larger than the clip bound", "look at the code that the site runs"),
    "masks": ("it is not masked as agreed, or has another length", "look at base and versions of the site"),
}

_SLACK = 1e-6  # of float32 sums in another order
_SLICE = BLOCK << 10


@dataclass(frozen=True, kw_only=True)
class Member:
    """A site as the signed federation knows it: Ed25519 key (32 bytes), the most units it may claim."""

    key: bytes
    units: int
    active: bool = True


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What an update of this round must be about."""

    federation: str
    round: int
    parent: str
    packing: Form
    layout: Layout
    bound: float


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """An update that may be averaged, with its norm; that of a masked one nobody knows."""

    statement: Statement
    norm: float | None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An update that may not; `site` is what it claims where `code` leaves that unproven."""

    code: Code
    site: str

    @property
    def proven(self) -> bool:
        """Whether it is known that the site itself sent it."""
        return self.code not in ("malformed", "stranger", "out", "forged")

    def words(self) -> tuple[str, str]:
        """(what is wrong, what to do)."""
        return WORDS[self.code]


def largest_update(expected: Expected) -> int:
    """Bytes of the longest update that can be right: whatever is longer need not be read."""
    return 68 + LONGEST_STATEMENT + packed_size(expected.layout.values, _packing(expected))


def admit(
    content: bytes, expected: Expected, members: Mapping[str, Member], admitted: Mapping[str, str]
) -> Admitted | Refused:
    """Whether `content` may be averaged. `admitted` holds the digest of each site's body in this round.

    The same update twice is admitted twice and counts once, as a link that retries will send it again.
    """
    if len(content) > largest_update(expected):
        return Refused(code="malformed", site="")
    found = stated(content, expected, members, admitted)
    if isinstance(found, Refused):
        return found
    statement, body = found
    if len(body) != packed_size(expected.layout.values, _packing(expected)):
        return Refused(code="length", site=statement.site)
    if not whole(statement, body):
        return Refused(code="body", site=statement.site)
    norm = _norm(body, expected)
    if norm is None:
        return Refused(code="values", site=statement.site)
    if norm > expected.bound * (1 + _SLACK):
        return Refused(code="norm", site=statement.site)
    return Admitted(statement=statement, norm=norm)


def stated(
    content: bytes, expected: Expected, members: Mapping[str, Member], admitted: Mapping[str, str]
) -> tuple[Statement, memoryview] | Refused:
    """Statement and body of an update whose site it really is and which is about this round.

    That the body is the statement's is still to be seen (update.whole).
    """
    try:
        statement, body, signed_by = opened_update(content)
    except ValueError:
        return Refused(code="malformed", site="")
    site = statement.site
    if site not in members:
        return Refused(code="stranger", site=site)
    member = members[site]
    if not member.active:
        return Refused(code="out", site=site)
    if not signed_by(member.key):
        return Refused(code="forged", site=site)
    if wrong := _about(statement, expected, member, admitted.get(site, statement.body)):
        return Refused(code=wrong, site=site)
    return statement, body


def _packing(expected: Expected) -> Packing:
    """The packing of an update that can be read; masked ones have a gate of their own (secure/gate.py)."""
    if expected.packing == "masked":
        raise ValueError("a masked vector")
    return expected.packing


def _about(statement: Statement, expected: Expected, member: Member, before: str) -> Code | None:
    if statement.federation != expected.federation:
        return "federation"
    if statement.round != expected.round:
        return "round"
    if statement.parent != expected.parent:
        return "parent"
    if statement.packing != expected.packing:
        return "packing"
    if statement.body != before:
        return "second"
    if not 1 <= statement.units <= member.units:
        return "units"
    return None


def _norm(body: memoryview, expected: Expected) -> float | None:
    """The norm, summed slice by slice; None where a value is not finite."""
    values, total = expected.layout.values, 0.0
    for start in range(0, values, _SLICE):
        some = _slice(body, values, _packing(expected), start).astype(np.float64)
        total += float(np.dot(some, some))
    return float(np.sqrt(total)) if np.isfinite(total) else None


def _slice(body: memoryview, values: int, packing: Packing, start: int) -> Array:
    end = min(values, start + _SLICE)
    return unpack_part(body[:4], body[slice(*part(packing, start, end))], end - start, packing)
