"""A coordinator that lies, with sites that help it, opens no vector of a single honest site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from secagg_support import Network, Round, federation, keys_of, lattice, names, vectors

from federated.secagg import coordinator, masks, messages
from federated.secagg.coordinator import Advertised
from federated.secagg.federation import Plan, least_threshold
from federated.secagg.privacy import least_together
from federated.secagg.refused import Refused


def opened(count: int = 5, minimum: int = 3, number: int = 1) -> Round:
    return Network(federation(count, minimum), lattice()).open(number, names(count))


def refused(reason: str, act: Callable[..., object], *given: Any) -> None:
    with pytest.raises(Refused) as found:
        act(*given)
    assert found.value.reason == reason, found.value.message


def mask(turn: Round, name: str, **other: Any) -> bytes:
    """The site's answer to the round, asked with something other than what it is."""
    plan = replace(
        turn.plan, **{what: other.pop(what) for what in ("roster", "threshold", "round") if what in other}
    )
    asked = replace(turn.asked, plan=plan, **other)
    told = Round(network=turn.network, plan=plan, offers=turn.offers, asked=asked)
    return turn.network.masked(name, told.request(name), vectors([name])[name])


def test_a_round_is_answered_once_whatever_the_cohort_is() -> None:
    """Else two sums that differ in one site would be that site."""
    turn = opened()
    mask(turn, "s000")
    refused("repeated", mask, turn, "s000")
    refused("repeated", lambda: mask(turn, "s000", cohort=tuple(names(4))))
    refused("repeated", turn.network.advertise, "s000", turn.plan)
    refused("repeated", turn.network.advertise, "s000", replace(turn.plan, threshold=5))


def test_a_round_key_is_advertised_once_and_used_under_its_plan_alone() -> None:
    turn = opened()
    refused("repeated", turn.network.advertise, "s000", replace(turn.plan, threshold=5))
    refused("other-plan", lambda: mask(turn, "s000", threshold=5))
    refused("other-plan", lambda: mask(turn, "s000", round=2))
    refused("other-plan", lambda: mask(turn, "s000", roster=tuple(names(4)), cohort=tuple(names(4))))


@pytest.mark.parametrize("number", [0, -1, 2**53])
def test_rounds_are_counted_from_one(number: int) -> None:
    net = Network(federation(3), lattice())
    refused("bad-round", net.advertise, "s000", Plan(round=number, roster=tuple(names(3)), threshold=3))


@pytest.mark.parametrize("roster, threshold", [(3, 2), (5, 3), (5, 6), (10, 6)])
def test_the_threshold_is_the_sites_own_matter(roster: int, threshold: int) -> None:
    net = Network(federation(10), lattice())
    plan = Plan(round=1, roster=tuple(names(roster)), threshold=threshold)
    refused("low-threshold", net.advertise, "s000", plan)
    with pytest.raises(Refused, match="need"):
        coordinator.plan_round(net.federation, 1, names(roster), threshold=threshold)


def test_the_cohort_has_its_least_size() -> None:
    net = Network(federation(6, minimum=5), lattice())
    for few in (2, 4):
        plan = Plan(round=1, roster=tuple(names(few)), threshold=few)
        refused("too-few", net.advertise, "s000", plan)
    turn = opened(6, minimum=6)
    refused("too-few", lambda: mask(turn, "s000", cohort=tuple(names(5))))  # as many as the threshold
    turn = opened(6)
    refused("too-few", lambda: mask(turn, "s000", cohort=tuple(names(4))))  # above the minimum


@pytest.mark.parametrize(
    "roster",
    [["s000", "s001", "s777"], ["s000", "s001", "s001"], ["s001", "s000", "s002"], ["s001", "s002", "s003"]],
)
def test_the_sites_are_the_pinned_ones(roster: list[str]) -> None:
    net = Network(federation(5), lattice())
    plan = Plan(round=1, roster=tuple(roster), threshold=len(roster))
    refused("wrong-sites", net.advertise, "s000", plan)


def test_the_cohort_is_of_the_roster_and_holds_the_site() -> None:
    turn = opened(6)
    sub = turn.network.open(2, names(5))
    sub.offers["s005"] = turn.offers["s005"]
    refused("wrong-sites", lambda: mask(sub, "s000", cohort=tuple(names(6))))
    refused("wrong-sites", lambda: mask(sub, "s000", cohort=("s001", "s002", "s003", "s004")))
    refused("wrong-sites", lambda: mask(sub, "s000", cohort=("s000", "s001", "s001", "s002", "s003")))
    small = Network(federation(5), lattice(sites=4)).open(1, names(5))
    refused("wrong-sites", mask, small, "s000")


def other_offer(turn: Round, name: str, how: str) -> Advertised:
    """A round key of `name` that is not its own for this round."""
    mine, false = turn.offers[name], Ed25519PrivateKey.from_private_bytes(b"f" * 32)
    if how == "older round":
        return Network(turn.network.federation, lattice()).open(7, names(5)).offers[name]
    if how == "other plan":
        net = Network(federation(6), lattice())
        return net.open(turn.plan.round, names(6)).offers[name]
    if how == "other federation":
        net = Network(replace(turn.network.federation, id="0" * 64), lattice())
        return net.open(turn.plan.round, names(5)).offers[name]
    if how == "of another site":
        return replace(turn.offers["s004"], parcels=mine.parcels)
    head = {
        "federation": turn.network.federation.id,
        "round": turn.plan.round,
        "site": name,
        "plan": turn.plan.digest(turn.network.federation.id),
        "key": bytes(31).hex() + "09",
    }
    signer = keys_of("s004").sign if how == "signed by another site" else false
    return replace(mine, head=messages.signed("advertise", head, b"", signer.sign))


@pytest.mark.parametrize(
    "how",
    [
        "older round",
        "other plan",
        "other federation",
        "of another site",
        "signed by another site",
        "signed by nobody",
    ],
)
def test_a_round_key_is_believed_only_with_the_pinned_signature(how: str) -> None:
    turn = opened()
    parcels = turn.offers["s001"].parcels
    turn.offers["s001"] = replace(other_offer(turn, "s001", how), parcels=parcels)
    refused("forged", mask, turn, "s000")
    assert turn.network.state("s000").last is None


def test_a_share_is_believed_only_from_its_dealer_for_this_site_and_round() -> None:
    turn = opened()
    mine = turn.offers["s001"]
    older = Network(turn.network.federation, lattice()).open(7, names(5)).offers["s001"]
    for parcel in (
        mine.parcels["s002"],
        turn.offers["s002"].parcels["s000"],
        older.parcels["s000"],
        bytes(176),
    ):
        turn.offers["s001"] = replace(mine, parcels={**mine.parcels, "s000": parcel})
        refused("forged", mask, turn, "s000")


def test_a_round_key_of_small_order_is_refused() -> None:
    turn = opened()
    head = {
        "federation": turn.network.federation.id,
        "round": 1,
        "site": "s001",
        "plan": turn.plan.digest(turn.network.federation.id),
        "key": bytes(32).hex(),
    }
    content = messages.signed("advertise", head, b"", keys_of("s001").sign.sign)
    turn.offers["s001"] = replace(turn.offers["s001"], head=content)
    refused("forged", mask, turn, "s000")


def test_the_same_round_key_twice_is_refused() -> None:
    turn = opened()
    said, _, _ = messages.opened(
        "advertise",
        messages.signed("advertise", {"key": turn.offers["s002"].key.hex()}, b"", keys_of("s001").sign.sign),
        turn.network.federation.members["s001"].sign,
    )
    head = {
        "federation": turn.network.federation.id,
        "round": 1,
        "site": "s001",
        "plan": turn.plan.digest(turn.network.federation.id),
        "key": said["key"],
    }
    content = messages.signed("advertise", head, b"", keys_of("s001").sign.sign)
    turn.offers["s001"] = replace(turn.offers["s001"], head=content)
    refused("malformed", mask, turn, "s000")


def test_a_message_is_for_one_site_of_one_federation_about_one_adapter() -> None:
    turn = opened()
    held = vectors(["s000"])["s000"]
    refused("misdirected", turn.network.masked, "s000", turn.request("s001"), held)
    refused("other-model", lambda: mask(turn, "s000", about="b" * 64))
    refused("other-model", lambda: mask(turn, "s000", bits=16))
    refused("other-model", lambda: mask(turn, "s000", values=4))
    message = turn.request("s000")
    for broken in (b"", message[:3], message[:-1], message + b"x", b"\xff" * 400):
        with pytest.raises(Refused) as found:
            turn.network.masked("s000", broken, held)
        assert found.value.reason in ("malformed", "forged")
    other = Round(
        network=Network(replace(turn.network.federation, id="0" * 64), lattice()),
        plan=turn.plan,
        offers=turn.offers,
        asked=turn.asked,
    )
    refused("misdirected", turn.network.masked, "s000", other.request("s000"), held)


def test_the_survivors_are_asked_about_once() -> None:
    """Else one list would give the seeds and the next one the round keys."""
    turn = opened()
    gathered = turn.gather(turn.replies(vectors(names(5))))
    first = turn.question(gathered, "s000")
    less = replace(gathered, weights=dict.fromkeys(names(4), 1))
    turn.network.reveal("s000", first)
    refused("repeated", turn.network.reveal, "s000", first)
    refused("repeated", turn.network.reveal, "s000", turn.question(less, "s000"))


def question(turn: Round, survivors: list[str], gone: list[str], parcels: int = 0) -> bytes:
    head = {
        "federation": turn.network.federation.id,
        "to": "s000",
        "round": turn.plan.round,
        "context": turn.asked.context(turn.network.federation.id),
        "survivors": survivors,
        "dropped": gone,
    }
    return messages.packed(head, bytes(176 * parcels))


def test_each_site_survived_or_dropped_and_enough_survived() -> None:
    turn = opened()
    gathered = turn.gather(turn.replies(vectors(names(5))))
    every = names(5)
    for survivors, gone, reason in (
        (every, ["s004"], "wrong-sites"),  # both
        (every[:4], [], "wrong-sites"),  # neither
        (every[:4], ["s009"], "wrong-sites"),
        ([*every[:4], "s003"], ["s004"], "wrong-sites"),
        (every[1:], ["s000"], "wrong-sites"),
        (every[:3], every[3:], "too-few"),
        (["s000"], every[1:], "too-few"),
    ):
        refused(reason, turn.network.reveal, "s000", question(turn, survivors, gone, len(survivors) - 1))
    refused("malformed", turn.network.reveal, "s000", question(turn, every, [], 3))
    refused("forged", turn.network.reveal, "s000", question(turn, every, [], 4))
    refused("misdirected", turn.network.reveal, "s000", turn.question(gathered, "s001"))
    assert len(turn.answers(gathered, every)) == 5  # refusals changed nothing


def test_only_the_vector_sent_last_is_asked_about() -> None:
    net = Network(federation(5), lattice())
    first = net.open(1, names(5))
    refused("bad-round", net.reveal, "s000", question(first, names(5), []))
    gathered = first.gather(first.replies(vectors(names(5))))
    second = net.open(2, names(5))
    second.replies(vectors(names(5)))
    refused("bad-round", net.reveal, "s000", first.question(gathered, "s000"))


def test_masks_of_sites_that_are_told_different_cohorts_do_not_cancel() -> None:
    net = Network(federation(5), lattice(values=400))
    turn = net.open(1, names(5))
    less = Round(
        network=net, plan=turn.plan, offers=turn.offers, asked=replace(turn.asked, cohort=tuple(names(4)))
    )
    zeros = np.zeros(400, np.int64)
    replies = [(name, net.masked(name, less.request(name), zeros)) for name in names(3)]
    told_all = net.masked("s003", turn.request("s003"), zeros)
    with pytest.raises(Refused, match="needed"):
        less.gather([*replies, ("s003", told_all)])
    own, public = X25519PrivateKey.from_private_bytes(b"x" * 32), turn.offers["s003"].key
    keys = {
        masks.pair_key(own, public, context=one.asked.context(net.federation.id), sites=("s000", "s003"))
        for one in (less, turn)
    }
    assert len(keys) == 2


def test_what_a_lie_about_survivors_can_open_is_no_single_site() -> None:
    """The bound of least_together: over all federations of up to 60 and all who may help the coordinator."""
    for sites in range(3, 61):
        for threshold in range(least_threshold(sites), sites + 1):
            for helping in range(2 * threshold - sites):
                least = least_together(sites, threshold, helping)
                assert least >= 2 or sites - helping == 1
                assert least <= threshold - helping
