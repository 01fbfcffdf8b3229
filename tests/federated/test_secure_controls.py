"""Controls of secure rounds that stand behind others: each is tried alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from secagg_support import Network, federation, lattice, names, vectors
from secure_world import World
from test_secure_lies import ALL, START, Coordinator
from world import LAYOUT

from federated.layout import vector_sha256
from federated.secagg import coordinator, masks, messages, shamir
from federated.secagg.refused import Refused
from federated.secure import attempt, wire


@pytest.fixture
def lying(tmp_path: Path) -> Coordinator:
    """A coordinator that says what it likes."""
    return Coordinator(World(tmp_path))


def test_rules_that_changed_after_the_key_was_given_hold_before_training(lying: Coordinator) -> None:
    plan = lying.plan(1, ALL)
    offers = lying.offers(plan)
    lying.world.policies["s1"] |= {"paused": True}
    assert lying.train(plan, offers, "s1") == "paused"
    lying.world.policies["s1"] = {"min_cohort": 5}
    assert lying.train(plan, offers, "s1") == "cohort"
    assert lying.world.trained == []


def test_a_round_is_learnt_from_one_adapter_alone(lying: Coordinator) -> None:
    """Two changes from two adapters, one made for the purpose, would say more of a site than was paid."""
    lying.masked(1, ALL)
    other = np.ones(LAYOUT.values, "<f4")
    plan = lying.plan(2, ALL)
    offers = lying.offers(plan)
    lying.parent = vector_sha256(LAYOUT, other.astype(np.float32))
    asked = coordinator.ask(lying.member, lying.space, plan, offers, about=lying.parent)
    message = coordinator.train_message(lying.member, asked, offers, "s1")
    assert lying.say("s1", wire.TRAIN, plan.round, wire.joined(message, other.tobytes())) == "again"
    assert lying.world.trained.count(("s1", 1)) == 1
    lying.parent = vector_sha256(LAYOUT, np.frombuffer(START, "<f4").astype(np.float32))
    assert isinstance(lying.train(plan, offers, "s1"), bytes)  # from its own it is masked anew


@pytest.mark.parametrize("secret", ["seed", "key"])
def test_one_share_below_the_threshold_opens_nothing(secret: str) -> None:
    """As a site deals them: with the shares that others reveal, not with shares made for the test."""
    net = Network(federation(6), lattice())
    turn = net.open(1, names(6))
    there = names(6) if secret == "seed" else names(6)[:5]
    gathered = turn.gather(turn.replies(vectors(there)))
    dealer = "s000" if secret == "seed" else "s005"
    shares = {}
    for site, answer in turn.answers(gathered, [name for name in there if name != dealer]):
        _, _, body = messages.opened("reveal", answer, net.federation.members[site].sign)
        at = turn.asked.cohort.index(dealer)
        shares[turn.plan.place(site)] = bytes(body[32 * at : 32 * (at + 1)])

    def right(number: int) -> bool:
        some = dict(sorted(shares.items())[:number])
        found = shamir.join(some, shamir.weights(tuple(some)))
        if secret == "seed":
            context = turn.asked.context(net.federation.id)
            return masks.commitment(found, context=context, site=dealer) == gathered.commitments[dealer]
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        public = X25519PrivateKey.from_private_bytes(found).public_key().public_bytes_raw()
        return public == turn.offers[dealer].key

    assert turn.plan.threshold == 5 and len(shares) == 5
    assert [right(number) for number in range(1, 6)] == [False] * 4 + [True]


def test_what_a_site_said_of_another_round_is_named_so() -> None:
    net = Network(federation(4), lattice())
    first = net.open(1, names(4))
    older = first.answers(first.gather(first.replies(vectors(names(4)))), ["s000"])
    second = net.open(2, names(4))
    gathered = second.gather(second.replies(vectors(names(4))))
    found = second.sum(gathered, [*older, *second.answers(gathered, names(4)[1:])])
    assert found.wrong == {"s000": "another round"}
    with pytest.raises(Refused, match="another round"):
        coordinator.advertised(net.federation, second.plan, "s000", advertised_in(1))


def advertised_in(number: int) -> bytes:
    """What s000 advertises in a round."""
    net = Network(federation(4), lattice())
    return net.advertise("s000", coordinator.plan_round(net.federation, number, names(4)))


def test_numbers_of_attempts_rise_also_in_a_folder_from_a_backup(tmp_path: Path) -> None:
    assert attempt.next_number(tmp_path, 1000.0) == 1000
    assert attempt.next_number(tmp_path, 1000.0) == 1001
    (tmp_path / "attempt").write_text("3")  # an older copy
    assert attempt.next_number(tmp_path, 2000.0) == 2000
