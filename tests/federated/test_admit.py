"""The gate: each way in which an update can be wrong has its code, and nothing wrong comes through."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from update_support import EXPECTED, LAYOUT, MEMBERS, change, update

from federated.admit import WORDS, Admitted, Refused, admit
from federated.packing import norm, pack, unpack
from federated.update import opened_update

BODY = pack(change(), "i8")


def _huge() -> bytes:
    return struct.pack("<f", np.inf) + BODY[4:]


def _nan() -> bytes:
    return BODY[:4] + struct.pack("<e", np.nan) + BODY[6:]


WRONG = {
    "malformed": [
        b"",
        update()[:3],
        update()[:200],
        update() + bytes(10_000),
        b"\0\0\0\2{}" + bytes(100),
        update(units=1 << 60),
        update(site="nor th"),
        update(packing="i4"),
        update(parent="A" * 64),
    ],
    "stranger": [update(site="west")],
    "forged": [update(signer="south"), update().replace(b'"units":80', b'"units":81')],
    "federation": [update(federation="0" * 64)],
    "round": [update(round=2), update(round=4)],
    "parent": [update(parent="0" * 64)],
    "packing": [update(pack(change(), "f32"), packing="f32")],
    "length": [update(BODY[:-1]), update(BODY + b"\0"), update(pack(change()[:-128], "i8"))],
    "body": [update()[:-1] + bytes([update()[-1] ^ 1])],
    "units": [update(units=0), update(units=101), update(units=-199)],
    "values": [update(_huge()), update(_nan())],
    "norm": [update(pack(change(norm=1.01), "i8")), update(pack(-1e6 * change(), "i8"))],
}


@pytest.mark.parametrize(("code", "content"), [(code, one) for code, many in WRONG.items() for one in many])
def test_what_is_wrong_is_refused_by_its_code(code: str, content: bytes) -> None:
    found = admit(content, EXPECTED, MEMBERS, {})
    assert isinstance(found, Refused) and found.code == code
    assert all(found.words())


def test_a_right_one_is_admitted_and_twice_counts_once() -> None:
    found = admit(update(), EXPECTED, MEMBERS, {})
    assert isinstance(found, Admitted) and found.statement.site == "north"
    assert found.norm == pytest.approx(norm(unpack(BODY, LAYOUT.values, "i8")))
    again = admit(update(), EXPECTED, MEMBERS, {"north": found.statement.body})
    assert again == found


def test_a_second_one_of_the_same_round_is_refused() -> None:
    first = admit(update(), EXPECTED, MEMBERS, {})
    assert isinstance(first, Admitted)
    other = update(pack(change(1), "i8"))
    found = admit(other, EXPECTED, MEMBERS, {"north": first.statement.body})
    assert found == Refused(code="second", site="north")


def test_who_has_left_is_refused() -> None:
    members = {"north": replace(MEMBERS["north"], active=False)}
    assert admit(update(), EXPECTED, members, {}) == Refused(code="out", site="north")


def test_every_code_is_tried_here() -> None:
    assert set(WORDS) == set(WRONG) | {"second", "out", "masks"}  # masks: test_secure_lies.py


def test_only_what_a_site_signed_is_held_against_it() -> None:
    """Otherwise anybody could have a site quarantined by sending rubbish in its name."""
    unproven = {"malformed", "stranger", "out", "forged"}
    assert {code for code in WORDS if not Refused(code=code, site="north").proven} == unproven


@given(st.data())
def test_no_changed_byte_comes_through(data: st.DataObject) -> None:
    content = bytearray(update())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    if bytes(content) != update():
        assert isinstance(admit(bytes(content), EXPECTED, MEMBERS, {}), Refused)


@given(st.binary(max_size=400))
def test_rubbish_is_refused(content: bytes) -> None:
    assert isinstance(admit(content, EXPECTED, MEMBERS, {}), Refused)
    with pytest.raises(ValueError, match=r"update|JSON|field|canonical|decode|digest|Expecting"):
        opened_update(content)
