"""Argon2id as RFC 9106 has it; a stored cost is neither weakened nor made an attack."""

from __future__ import annotations

import pytest

from appliance.core.errors import ConfigWrong
from appliance.security import passphrase
from appliance.security.passphrase import Cost


def test_a_key_depends_on_passphrase_and_salt() -> None:
    key = passphrase.stretch("correct horse battery", salt=b"0123456789abcdef", cost=Cost())
    assert len(key) == 32
    assert key == passphrase.stretch("correct horse battery", salt=b"0123456789abcdef", cost=Cost())
    assert key != passphrase.stretch("correct horse batterx", salt=b"0123456789abcdef", cost=Cost())
    assert key != passphrase.stretch("correct horse battery", salt=b"0123456789abcdeg", cost=Cost())


def test_accents_may_be_typed_in_either_form() -> None:
    cost = Cost()
    composed = passphrase.stretch("caf\u00e9 au lait noir", salt=b"s" * 16, cost=cost)
    assert composed == passphrase.stretch("cafe\u0301 au lait noir", salt=b"s" * 16, cost=cost)


@pytest.mark.parametrize(
    "held",
    [
        None,
        {},
        {"memory": 64 << 10, "passes": 3},
        {"memory": 1 << 10, "passes": 3, "lanes": 4},
        {"memory": 64 << 10, "passes": 1, "lanes": 4},
        {"memory": 64 << 10, "passes": 3, "lanes": 0},
        {"memory": 1 << 30, "passes": 3, "lanes": 4},
        {"memory": 64 << 10, "passes": 10**6, "lanes": 4},
        {"memory": 64 << 10, "passes": 3, "lanes": True},
        {"memory": float(64 << 10), "passes": 3, "lanes": 4},
    ],
)
def test_a_stored_cost_out_of_bounds_is_refused(held: object) -> None:
    with pytest.raises(ValueError):
        passphrase.read_cost(held)


def test_a_stored_cost_reads_back() -> None:
    assert passphrase.read_cost(Cost(memory=128 << 10).to_json()) == Cost(memory=128 << 10)


@pytest.mark.parametrize("words", ["", "short", "aaaaaaaaaaaaaaaa", "abababababababab"])
def test_an_easy_passphrase_is_refused(words: str) -> None:
    with pytest.raises(ConfigWrong):
        passphrase.check_new(words)
