"""Recovery shares: every two of three open, one says nothing, and a typing error is found."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from vault_support import sealed_home

from appliance.core.errors import ConfigWrong
from appliance.security.vault import box, recovery, slots
from appliance.security.vault.recovery import from_text, join, split, times, to_text
from appliance.security.vault.slots import PassphraseWrong

VAULT = "00112233445566778899aabbccddeeff"
SECRET = bytes(range(100, 132))


@pytest.mark.parametrize(("needed", "shares"), [(2, 3), (3, 5), (2, 2), (4, 6)])
def test_all_subsets(needed: int, shares: int) -> None:
    made = split(SECRET, needed=needed, shares=shares, vault=VAULT)
    for size in range(needed, shares + 1):
        for some in itertools.combinations(made[::-1], size):
            assert join(some, vault=VAULT) == SECRET
    for some in itertools.combinations(made, needed - 1):
        if some:
            with pytest.raises(ConfigWrong, match=r"too few|shares of this"):
                join(some, vault=VAULT)
        with pytest.raises(ConfigWrong):
            join([*some, *some], vault=VAULT)


def test_one_share_says_nothing_exactly() -> None:
    """For each share and each secret there is exactly one polynomial: every secret is as likely."""
    for number in (1, 2, 3):
        for secret in (0, 1, 77, 255):
            seen = Counter(recovery._value([secret, slope], number) for slope in range(256))
            assert len(seen) == 256
            assert set(seen.values()) == {1}


def test_two_shares_of_three_needed_say_nothing_exactly() -> None:
    """The map (secret, second coefficient) -> two points is one to one for every first coefficient set."""
    seen = {
        (recovery._value([9, a, b], 1), recovery._value([9, a, b], 2)) for a in range(256) for b in range(256)
    }
    assert len(seen) == 65536


def test_the_field_is_a_field() -> None:
    assert times(0x57, 0x83) == 0xC1  # FIPS 197, 4.2
    assert all(times(a, recovery.inverse(a)) == 1 for a in range(1, 256))
    assert all(times(a, b) == times(b, a) for a in range(0, 256, 7) for b in range(256))


def test_typed_shares() -> None:
    share = split(SECRET, vault=VAULT)[1]
    text = to_text(share)
    assert from_text(text) == share
    assert from_text(text.lower().replace(" ", "-")) == share
    letters = text.replace(" ", "")
    for at in range(len(letters)):
        wrong = letters[:at] + ("A" if letters[at] != "A" else "C") + letters[at + 1 :]
        with pytest.raises(ConfigWrong):
            from_text(wrong)
    for cut in ("", "A", letters[:-1], letters + "A"):
        with pytest.raises(ConfigWrong):
            from_text(cut)


def test_shares_of_two_sets_or_sites_do_not_mix() -> None:
    first, second = split(SECRET, vault=VAULT), split(SECRET, vault=VAULT)
    with pytest.raises(ConfigWrong, match="together"):
        join([first[0], second[1]], vault=VAULT)
    with pytest.raises(ConfigWrong, match="site"):
        join(first, vault="ff" * 16)


def test_a_recovery_opens_the_vault_and_a_new_one_ends_it(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path)
    with pytest.raises(PassphraseWrong):
        slots.open_recovery(home, SECRET)
    slots.set_recovery(home, master, SECRET)
    shares = split(SECRET, vault=box.read(home.path)[0].vault)
    found = join(shares[1:], vault=box.read(home.path)[0].vault)
    assert slots.open_recovery(home, found) == master
    slots.set_recovery(home, master, bytes(32))
    with pytest.raises(PassphraseWrong):
        slots.open_recovery(home, SECRET)
