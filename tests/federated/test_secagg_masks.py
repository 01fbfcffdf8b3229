"""Masks: uniform, different for everything they are keyed by, and gone only when all are taken off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.stats import chi2
from secagg_support import Network, federation, keys_of, lattice, names

from federated.secagg import masks, messages, shamir, site, state

KEY = bytes(range(32))


def not_uniform(content: bytes) -> float:
    """How seldom uniform bytes are as uneven as these, two-sided: small where they are not uniform."""
    counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    expected = len(content) / 256
    below = chi2.cdf(float(((counts - expected) ** 2).sum() / expected), 255)
    return float(2 * min(below, 1 - below))


def vector_of(values: int, bits: int, integers: np.ndarray, seed: int) -> bytes:
    """The masked vector that s000 sends, its own secrets drawn from `seed`."""
    net = Network(federation(3), lattice(values=values, bits=bits))
    turn = net.open(1, names(3))
    draw = np.random.default_rng(seed).bytes
    _, answer = site.masked(
        net.state("s000"),
        keys_of("s000"),
        net.federation,
        net.lattice,
        turn.request("s000"),
        integers,
        weight=1,
        about=turn.asked.about,
        random=draw,
    )
    _, _, body = messages.opened("masked", answer, net.federation.members["s000"].sign)
    return bytes(body[: values * bits // 8])


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_masked_vector_alone_is_uniform_whatever_it_hides(bits: int) -> None:
    """Round keys are drawn anew each time: a right build fails here less than once in 50,000 runs."""
    size = 60_000
    for hidden in (np.zeros(size, np.int64), np.full(size, 100), np.arange(size) % 2):
        content = vector_of(size, bits, hidden, 1)
        assert not_uniform(content) > 1e-6
        halves = np.frombuffer(content, np.uint8)
        assert abs(np.corrcoef(halves[:-1], halves[1:])[0, 1]) < 0.025
    assert not_uniform(masks.to_bytes(masks.words(np.zeros(size, np.int64), bits), bits)) == 0.0  # type: ignore[arg-type]


def test_each_mask_alone_hides_and_only_all_of_them_show() -> None:
    """With the masks of both others known the own one still hides, and the other way round."""
    size, hidden = 60_000, np.full(60_000, 7)
    keys = [(bytes([number]) * 32, sign) for number, sign in ((1, 1), (2, 1), (3, -1))]
    total = masks.words(hidden, 32)
    masks.add_masks(total, keys)
    for left_on in range(3):
        shown = total.copy()
        masks.add_masks(shown, [(key, -sign) for at, (key, sign) in enumerate(keys) if at != left_on])
        assert not_uniform(masks.to_bytes(shown, 32)) > 1e-6
    masks.add_masks(total, [(key, -sign) for key, sign in keys])
    assert np.array_equal(masks.centred(total, 32), hidden) and size == total.size


def test_a_mask_is_the_keystream_of_aes_256_in_counter_mode() -> None:
    for bits in (16, 24, 32):
        total = masks.words(np.zeros(70_001, np.int64), bits)  # type: ignore[arg-type]
        masks.add_masks(total, [(KEY, 1)])
        stream = Cipher(algorithms.AES256(KEY), modes.CTR(bytes(16))).encryptor()
        expected = np.frombuffer(stream.update(bytes(total.nbytes)), total.dtype)
        assert np.array_equal(total, expected)


def test_more_masks_than_are_added_at_once() -> None:
    total = masks.words(np.arange(5), 16)
    keys = [(bytes([number]) * 32, 1) for number in range(150)]
    masks.add_masks(total, keys)
    masks.add_masks(total, ((key, -sign) for key, sign in reversed(keys)))
    assert np.array_equal(masks.centred(total, 16), np.arange(5))


def test_keys_differ_for_all_they_are_bound_to() -> None:
    ours, theirs = (X25519PrivateKey.from_private_bytes(bytes([at]) * 32) for at in (1, 2))
    public = theirs.public_key().public_bytes_raw()
    one = masks.pair_key(ours, public, context="c", sites=("a", "b"))
    back = masks.pair_key(theirs, ours.public_key().public_bytes_raw(), context="c", sites=("b", "a"))
    assert one == back
    others = [
        masks.pair_key(ours, public, context="d", sites=("a", "b")),
        masks.pair_key(ours, public, context="c", sites=("a", "e")),
        masks.self_key(KEY, context="c", site="a"),
        masks.self_key(KEY, context="d", site="a"),
        masks.self_key(KEY, context="c", site="b"),
    ]
    assert len({one, *others}) == 6
    found = {masks.commitment(KEY, context=c, site=s) for c in "cd" for s in "ab"}
    assert len(found) == 4 and masks.commitment(bytes(32), context="c", site="a") not in found


def test_the_context_is_another_for_all_that_a_round_is() -> None:
    asked = Network(federation(4), lattice()).open(1, names(4)).asked
    plans = [
        replace(asked.plan, **one) for one in ({"round": 2}, {"threshold": 4}, {"roster": ("a", "b", "c")})
    ]  # type: ignore[arg-type]
    others = [
        *(replace(asked, plan=plan) for plan in plans),
        replace(asked, cohort=tuple(names(3))),
        replace(asked, about="b" * 64),
        replace(asked, bits=16),
        replace(asked, values=6),
    ]
    contexts = {one.context("f" * 64) for one in (asked, *others)} | {asked.context("e" * 64)}
    assert len(contexts) == 9


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_words_travel_in_their_bits_and_come_back_with_their_sign(bits: int) -> None:
    most = (1 << bits - 1) - 1
    values = np.array([0, 1, -1, most, -most, -most - 1, 12345, -12345])
    content = masks.to_bytes(masks.words(values, bits), bits)  # type: ignore[arg-type]
    assert len(content) == values.size * bits // 8
    assert np.array_equal(masks.centred(masks.from_bytes(content, bits), bits), values)  # type: ignore[arg-type]


def test_a_fresh_seed_each_round_and_site() -> None:
    """The same vector of the same site never looks the same: each round has fresh secrets."""
    net = Network(federation(3), lattice(values=50))
    seen = set()
    for number in (1, 2, 3):
        turn = net.open(number, names(3))
        for name in names(3):
            answer = net.masked(name, turn.request(name), np.zeros(50, np.int64))
            _, _, body = messages.opened("masked", answer, net.federation.members[name].sign)
            seen.add(bytes(body[:200]))
    assert len(seen) == 9


def test_a_site_that_lost_its_state_begins_again_with_other_secrets() -> None:
    net = Network(federation(3), lattice())
    first = net.open(1, names(3))
    mine = net.masked("s000", first.request("s000"), np.zeros(5, np.int64))
    net.stored["s000"] = state.to_bytes(state.fresh(net.federation.id, "s000"))
    content = net.advertise("s000", first.plan)
    head, _, _ = messages.opened("advertise", content, net.federation.members["s000"].sign)
    assert head["key"] != first.offers["s000"].key.hex()
    _, _, body = messages.opened("masked", mine, net.federation.members["s000"].sign)
    second = net.masked("s000", first.request("s000"), np.zeros(5, np.int64))
    _, _, again = messages.opened("masked", second, net.federation.members["s000"].sign)
    assert bytes(body[:20]) != bytes(again[:20])


def test_drawn_numbers_stay_below_the_prime() -> None:
    draws = iter([b"\xff" * 32, (shamir.PRIME).to_bytes(32, "little"), bytes([5]) + bytes(31)])
    assert shamir.element(lambda size: next(draws)) == 5
