"""Secure aggregation: the sum is the plain sum, whoever drops out, and wrong answers are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_support import ABOUT, Network, Round, federation, keys_of, lattice, names, vectors

from appliance.core.errors import ConfigWrong, DataRejected
from federated.secagg import coordinator, masks, messages, offer, shamir, site, state
from federated.secagg.federation import Federation, least_threshold
from federated.secagg.refused import Refused


def network(count: int = 4, **of: int) -> Network:
    return Network(federation(count), lattice(**of))


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    count=st.integers(3, 9),
    bits=st.sampled_from([16, 24, 32]),
    values=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_sum_is_the_plain_sum_whoever_drops(
    data: st.DataObject, count: int, bits: int, values: int, seed: int
) -> None:
    net = Network(federation(count), lattice(values=values, bits=bits))
    roster = names(count)
    threshold = data.draw(st.integers(least_threshold(count), count))
    plan = coordinator.plan_round(net.federation, 1, roster, threshold=threshold)
    some = st.integers(threshold, count)
    cohort = data.draw(st.permutations(roster))[: data.draw(some)]
    offers = {
        name: coordinator.advertised(net.federation, plan, name, net.advertise(name, plan)) for name in cohort
    }
    turn = Round(network=net, plan=plan, offers=offers, asked=net.ask(plan, offers))
    held = vectors(cohort, values, seed)
    survivors = data.draw(st.permutations(cohort))[: data.draw(st.integers(threshold, len(cohort)))]
    gathered = turn.gather(turn.replies({name: held[name] for name in survivors}))
    answering = data.draw(st.permutations(survivors))[: data.draw(st.integers(threshold, len(survivors)))]
    found = turn.sum(gathered, turn.answers(gathered, answering))
    assert found.survivors == tuple(sorted(survivors)) and found.weight == len(survivors)
    assert found.wrong == {}
    assert np.array_equal(masks.centred(found.total, bits), sum(held[name] for name in survivors))  # type: ignore[arg-type]


def test_rounds_follow_each_other_with_two_messages_each() -> None:
    """The key of round r + 1 is advertised when round r is answered, and a site may come back."""
    net = network(4)
    turn = net.open(1, names(4))
    for number in range(2, 5):
        gone = names(4)[number % 4]
        held = vectors([name for name in names(4) if name != gone], seed=number)
        gathered = turn.gather(turn.replies(held))
        following = net.open(number, names(4))
        found = turn.sum(gathered, turn.answers(gathered, gathered.survivors))
        assert np.array_equal(masks.centred(found.total, 32), sum(held.values()))  # type: ignore[arg-type]
        turn = following


def test_weights_are_public_and_add_up() -> None:
    net = Network(federation(3), lattice(most=7))
    turn = net.open(1, names(3))
    held, weights = vectors(names(3)), dict(zip(names(3), (1, 5, 7), strict=True))
    replies = [
        (name, net.masked(name, turn.request(name), held[name] * weights[name], weights[name]))
        for name in names(3)
    ]
    gathered = turn.gather(replies)
    found = turn.sum(gathered, turn.answers(gathered, names(3)))
    assert found.weight == 13 and dict(gathered.weights) == weights
    for weight in (0, 8):
        with pytest.raises(DataRejected, match="weight"):
            other = net.open(10 + weight, names(3))
            net.masked("s000", other.request("s000"), held["s000"], weight)


def test_too_few_replies_and_too_few_answers_give_nothing() -> None:
    net = network(7)
    turn = net.open(1, names(7))
    assert turn.plan.threshold == 5
    replies = turn.replies(vectors(names(7)[:5]))
    with pytest.raises(Refused, match="5 are needed") as few:
        turn.gather(replies[:4])
    assert few.value.code == "secagg-too-few"
    gathered = turn.gather(replies)
    answers = turn.answers(gathered, gathered.survivors)
    with pytest.raises(Refused, match="5 are needed"):
        turn.sum(gathered, answers[:4])
    assert turn.sum(gathered, answers).survivors == tuple(names(5))


def test_fewer_shares_than_needed_say_nothing() -> None:
    """Any t - 1 shares fit every secret equally well; t give the one."""
    secret = bytes(range(32))
    shares = shamir.deal(secret, range(1, 256), needed=171, random=np.random.default_rng(0).bytes)
    places = tuple(range(85, 256))
    assert shamir.join(shares, shamir.weights(places)) == secret
    known = {place: shares[place] for place in places[1:]}
    for other in (bytes(32), bytes([7]) * 32):
        at_zero = shamir.weights((0, *known))  # a polynomial of the same degree with any other constant
        assert len(at_zero) == 171 and shamir.join({0: other, **known}, at_zero) == other
    fewer = shamir.weights(places[1:])
    assert shamir.join(known, fewer) != secret
    with pytest.raises(ValueError, match="field"):
        shamir.deal(b"\xff" * 32, [1, 2, 3], needed=2, random=np.random.default_rng(0).bytes)
    for places_wrong, needed in (((1, 1, 2), 2), ((0, 1, 2), 2), ((1, 2), 3), ((1, 256), 2)):
        with pytest.raises(ValueError, match="places"):
            shamir.deal(secret, places_wrong, needed=needed, random=np.random.default_rng(0).bytes)


def alter_reveal(answer: bytes, name: str, shares: Callable[[bytes], bytes]) -> bytes:
    """An answer with other shares, signed by the site that gave it."""
    sender = keys_of(name)
    head, _, body = messages.opened("reveal", answer, sender.sign.public_key().public_bytes_raw())
    del head["body"]
    return messages.signed("reveal", head, shares(bytes(body)), sender.sign.sign)


def test_a_wrong_share_names_the_site_and_the_sum_is_right_without_it() -> None:
    net = network(7)
    turn = net.open(1, names(7))
    held = vectors(names(7)[:6])
    gathered = turn.gather(turn.replies(held))
    answers = dict(turn.answers(gathered, gathered.survivors))
    answers["s002"] = alter_reveal(answers["s002"], "s002", lambda body: bytes([body[0] ^ 1]) + body[1:])
    found = turn.sum(gathered, answers.items())
    assert set(found.wrong) == {"s002"} and "s000" in found.wrong["s002"]
    assert np.array_equal(masks.centred(found.total, 32), sum(held.values()))  # type: ignore[arg-type]
    answers["s002"] = answers["s002"][:-1] + b"x"
    assert turn.sum(gathered, answers.items()).wrong == {"s002": "another body"}
    answers["s002"] = answers["s001"]
    assert set(turn.sum(gathered, answers.items()).wrong) == {"s002"}
    answers["s001"] = alter_reveal(answers["s001"], "s001", lambda body: bytes(len(body)))
    with pytest.raises(Refused, match="4 right shares"):
        turn.sum(gathered, answers.items())


def dealt_other(name: str, what: str, message: bytes, where: slice) -> bytes:
    """A message of a site whose parcels hold something else, but are signed by it."""
    keys = keys_of(name)
    head, _, body = messages.opened(what, message, keys.sign.public_key().public_bytes_raw())
    del head["body"]
    altered = bytearray(body)
    altered[where] = bytes(len(altered[where]))
    return messages.signed(what, head, bytes(altered), keys.sign.sign)


def test_replies_that_are_wrong_are_left_out_and_named() -> None:
    net = network(7)
    turn = net.open(1, names(7))
    held = vectors(names(7))
    replies = dict(turn.replies(held))
    replies["s001"] = dealt_other("s001", "masked", replies["s001"], slice(20, 196))  # the first parcel
    replies["s002"] = replies["s002"][:-1]
    other = [("s003", replies["s003"]), ("s009", replies["s003"])]
    gathered = turn.gather([*replies.items(), *other])
    assert set(gathered.refused) == {"s001", "s002", "s003", "s009"}
    found = turn.sum(gathered, turn.answers(gathered, gathered.survivors))
    assert found.survivors == ("s000", "s003", "s004", "s005", "s006")
    assert np.array_equal(
        masks.centred(found.total, 32),
        sum(held[name] for name in found.survivors),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("what", ["federation", "round", "site", "plan"])
def test_a_round_key_of_something_else_is_refused(what: str) -> None:
    net = network(3)
    plan = coordinator.plan_round(net.federation, 5, names(3))
    content = net.advertise("s000", plan)
    coordinator.advertised(net.federation, plan, "s000", content)
    others = {
        "federation": (replace(net.federation, id="e" * 64), plan, "s000"),
        "round": (net.federation, replace(plan, round=6), "s000"),
        "site": (net.federation, plan, "s001"),
        "plan": (federation(4), coordinator.plan_round(federation(4), 5, names(4)), "s000"),
    }
    of, by, name = others[what]
    with pytest.raises(Refused) as wrong:
        coordinator.advertised(of, by, name, content)
    assert wrong.value.site == name
    with pytest.raises(Refused, match="cannot be used"):
        coordinator.advertised(
            net.federation, plan, "s000", dealt_other("s000", "advertise", content, slice(0, 176))
        )


def test_a_dealer_of_bad_shares_is_named_by_those_who_got_them() -> None:
    """A share that cannot be read stops nobody; secrets that do not fit what was signed name their dealer."""
    net = network(4)
    plan = coordinator.plan_round(net.federation, 1, names(4))
    digest = plan.digest(net.federation.id)
    offers = {}
    for name in names(4):
        content = net.advertise(name, plan)
        if name == "s003":
            keys = keys_of(name)
            head, _, body = messages.opened("advertise", content, keys.sign.public_key().public_bytes_raw())
            del head["body"]
            about = messages.label("key", net.federation.id, 1, digest, name, "s000")
            wrong = bytes(80) + bytes(body[80:112])
            first = wrong + keys.sign.sign(about + wrong)
            content = messages.signed("advertise", head, first + bytes(body[176:]), keys.sign.sign)
        offers[name] = coordinator.advertised(net.federation, plan, name, content)
    turn = Round(network=net, plan=plan, offers=offers, asked=net.ask(plan, offers))
    replies = turn.replies(vectors(names(4)))
    assert turn.gather(replies).unread == {"s000": ("s003",)}
    gathered = turn.gather(replies[:3])  # the dealer drops out: only two have its shares
    with pytest.raises(Refused, match="2 right shares of s003") as named:
        turn.sum(gathered, turn.answers(gathered, gathered.survivors))
    assert named.value.site == "s003"


def test_a_parcel_with_another_share_than_its_digest_says_is_unread() -> None:
    about, (dealer, holder) = b"about", (keys_of("s000"), keys_of("s001"))
    to, sender = holder.x25519.public_key().public_bytes_raw(), dealer.sign.public_key().public_bytes_raw()
    good, other = (
        messages.seal_share(bytes([at]) * 32, to=to, about=about, sign=dealer.sign.sign) for at in (1, 2)
    )
    assert messages.open_share(good, key=holder.x25519, sender=sender, about=about) == bytes([1]) * 32
    mixed = other[:80] + good[80:112]
    parcel = mixed + dealer.sign.sign(about + mixed)
    assert messages.open_share(parcel, key=holder.x25519, sender=sender, about=about) is None


@pytest.mark.parametrize("secret", ["seed", "key"])
def test_shares_of_another_secret_name_their_dealer(secret: str) -> None:
    net = network(4)
    turn = net.open(1, names(4))
    gathered = turn.gather(turn.replies(vectors(names(4) if secret == "seed" else names(3))))
    answers = turn.answers(gathered, gathered.survivors)
    if secret == "seed":
        gathered = replace(gathered, commitments={**gathered.commitments, "s003": "0" * 64})
    else:
        turn.offers["s003"] = replace(turn.offers["s003"], key=turn.offers["s002"].key)
    with pytest.raises(Refused, match="s003 dealt") as named:
        turn.sum(gathered, answers)
    assert named.value.site == "s003"


def test_states_keep_what_was_answered_and_no_secret_that_was_used() -> None:
    net = network(3)
    turn = net.open(1, names(3))
    secret = net.state("s000").offers[0].secret
    assert secret.hex() in net.stored["s000"].decode()
    gathered = turn.gather(turn.replies(vectors(names(3))))
    assert secret.hex() not in net.stored["s000"].decode() and net.state("s000").offers == ()
    share = net.state("s000").last.seed_share  # type: ignore[union-attr]
    turn.answers(gathered, names(3))
    assert share.hex() not in net.stored["s000"].decode()
    last = net.state("s000").last
    assert last and last.revealed and last.key_shares == {} and last.seed_share == site.NO_SHARE
    assert secret.hex() not in repr(net.state("s000")) and share.hex() not in repr(last)
    for damaged in (b"", b"{}", net.stored["s000"][:-2], net.stored["s000"].replace(b'"v":1', b'"v":2')):
        with pytest.raises(ConfigWrong, match="damaged"):
            state.state_of(damaged)
    other = replace(net.federation, id="0" * 64)
    with pytest.raises(ConfigWrong, match="another site or federation"):
        offer.advertise(net.state("s000"), keys_of("s000"), other, turn.plan)


def test_keys_that_are_not_the_pinned_ones_are_not_used() -> None:
    net = network(3)
    plan = coordinator.plan_round(net.federation, 1, names(3))
    for other in ({"sign": keys_of("s001").sign}, {"x25519": keys_of("s001").x25519}):
        with pytest.raises(ConfigWrong, match="not the pinned ones"):
            offer.advertise(
                net.state("s000"),
                replace(keys_of("s000"), **other),
                net.federation,
                plan,  # type: ignore[arg-type]
            )


def test_unused_round_keys_are_forgotten_after_eight() -> None:
    net = network(3)
    for number in range(1, 12):
        net.advertise("s000", coordinator.plan_round(net.federation, number, names(3)))
    assert [one.round for one in net.state("s000").offers] == list(range(4, 12))


def test_a_federation_of_two_or_with_a_key_twice_is_none() -> None:
    members = dict(federation(3).members)
    with pytest.raises(ConfigWrong, match="3 to 255"):
        Federation(id="f" * 64, members=members, minimum=2)
    with pytest.raises(ConfigWrong, match="3 to 255"):
        Federation(id="f" * 64, members={name: members[name] for name in names(2)})
    with pytest.raises(ConfigWrong, match="same key"):
        Federation(id="f" * 64, members={**members, "s003": members["s000"]})
    largest = Federation(id="f" * 64, members=dict(federation(255).members))
    assert coordinator.plan_round(largest, 1, names(255)).threshold == 171


def test_integers_that_could_wrap_do_not_leave_the_site() -> None:
    net = network(3)
    turn = net.open(1, names(3))
    for wrong in (np.full(5, 101), np.full(5, -101), np.zeros(4, np.int64), np.zeros(5, np.int32)):
        with pytest.raises(DataRejected):
            net.masked("s000", turn.request("s000"), wrong)
    assert net.state("s000").masked_round == 0
    assert turn.asked.about == ABOUT
