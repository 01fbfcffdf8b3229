"""Canonical JSON: one value, one spelling; everything else is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.security import canonical

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda held: st.lists(held, max_size=4) | st.dictionaries(st.text(), held, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_what_is_encoded_reads_back(value: object) -> None:
    assert canonical.decode(canonical.encode(value)) == value


@given(_VALUES)
def test_another_spelling_is_refused(value: object) -> None:
    canonical_bytes = canonical.encode(value)
    loose = json.dumps(value, indent=1, ensure_ascii=False).encode()
    if loose != canonical_bytes:
        with pytest.raises(ValueError):
            canonical.decode(loose)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1.5",
        b"1e3",
        b"NaN",
        b"Infinity",
        b"-0",
        b"01",
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'"\\u0041"',
        b"1" * 5000,
        b"[" * 100_000,
        b"[" * 40 + b"]" * 40,
        '"\u00e9"'.encode(),
        b"1\n",
        b'"\xff"',
    ],
)
def test_hostile_spellings_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        canonical.decode(content)


@pytest.mark.parametrize("value", [1.0, float("nan"), b"x", {1: 2}, (1,), {"a": {2.5}}])
def test_what_has_no_spelling_is_not_encoded(value: object) -> None:
    with pytest.raises(ValueError):
        canonical.encode(value)
