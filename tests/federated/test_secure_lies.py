"""Who lies in a secure round gets nothing: a coordinator, a site, or somebody in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from secure_world import Message, World
from world import LAYOUT, NOW, key

from federated import seat
from federated.seat import Request
from federated.secagg import coordinator, messages
from federated.secagg.coordinator import Advertised
from federated.secagg.federation import Plan
from federated.secure import pinned, wire
from federated.update import opened_update, sealed_update

START = np.zeros(LAYOUT.values, "<f4").tobytes()


class Coordinator:
    """One that says what it likes, by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.member = pinned.federation_of(world.federation, world.course.digest)
        self.space = pinned.lattice_of(world.federation, LAYOUT.values)
        self.parent = world.course.expected(_round(1)).parent
        self.vectors: dict[str, bytes] = {}

    def say(self, site: str, step: str, attempt: int, body: bytes, round_: int = 1) -> bytes | str:
        """One question; the answer."""
        head: Message = {
            "agreement": self.world.file,
            "signature": self.world.signature,
            "round": round_,
            "step": step,
            "attempt": attempt,
            "cohort": 99,
            "parent": self.parent,
            "whole": 1,
        }
        return self.world.answer(site, head, body)

    def plan(self, number: int, roster: list[str], threshold: int | None = None) -> Plan:
        """A plan, right or not."""
        least = 2 * len(roster) // 3 + 1
        return Plan(round=number, roster=tuple(roster), threshold=threshold or least)

    def keys(self, plan: Plan, site: str) -> bytes | str:
        """What a site advertises."""
        return self.say(site, wire.KEYS, plan.round, wire.plan_message(self.member, plan))

    def offers(self, plan: Plan) -> dict[str, Advertised]:
        """What all of a plan advertise."""
        return {
            site: coordinator.advertised(self.member, plan, site, _sent(self.keys(plan, site)))
            for site in plan.roster
        }

    def train(self, plan: Plan, offers: dict[str, Advertised], site: str, round_: int = 1) -> bytes | str:
        """What a site sends for a cohort."""
        asked = coordinator.ask(self.member, self.space, plan, offers, about=self.parent)
        message = coordinator.train_message(self.member, asked, offers, site)
        return self.say(site, wire.TRAIN, plan.round, wire.joined(message, START), round_)

    def masked(self, number: int, roster: list[str]) -> tuple[Plan, dict[str, Advertised]]:
        """An attempt in which all have sent their vectors."""
        plan = self.plan(number, roster)
        offers = self.offers(plan)
        for site in roster:
            self.vectors[site] = _sent(self.train(plan, offers, site))
        return plan, offers

    def open(
        self, plan: Plan, offers: dict[str, Advertised], site: str, survivors: list[str], round_: int = 1
    ) -> bytes | str:
        """Ask a site to open the sum of some."""
        asked = coordinator.ask(self.member, self.space, plan, offers, about=self.parent)
        parcels = {}
        for name in asked.cohort:
            _, body, _ = opened_update(self.vectors[name])
            parcels[name] = coordinator.masked_of(self.member, self.space, asked, name, body).parcels
        head = {
            "federation": self.member.id,
            "to": site,
            "round": plan.round,
            "context": asked.context(self.member.id),
            "survivors": survivors,
            "dropped": [name for name in asked.cohort if name not in survivors],
        }
        body = b"".join(parcels[peer][site] for peer in survivors if peer != site)
        message = messages.packed(head, body)
        return self.say(site, wire.OPEN, plan.round, wire.joined(message, b""), round_)


def _round(number: int) -> Any:
    from federated import rounds
    from federated.layout import vector_sha256

    parent = vector_sha256(LAYOUT, np.zeros(LAYOUT.values, np.float32))
    return rounds.opened_round(number, parent, ["s1"], now=0.0, seconds=60.0)


def _sent(found: bytes | str) -> bytes:
    assert isinstance(found, bytes), found
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def lying(world: World) -> Coordinator:
    return Coordinator(world)


ALL = ["s1", "s2", "s3", "s4"]


def test_the_tools_of_these_tests_can_open_a_sum(lying: Coordinator) -> None:
    plan, offers = lying.masked(1, ALL)
    for site in ALL:
        assert isinstance(lying.open(plan, offers, site, ALL), bytes)


def test_a_site_does_not_send_its_update_in_clear(world: World) -> None:
    asked = Request(
        agreement=world.file,
        signature=world.signature,
        round=1,
        cohort=4,
        adapter=np.zeros(LAYOUT.values, np.float32),
    )
    assert seat.answer(world.seats["s1"], asked, now=NOW) == "plain"
    assert world.trained == []


@pytest.mark.parametrize(
    ("roster", "threshold", "reason"),
    [
        (["s1", "s2"], None, "cohort"),
        (["s1"], None, "cohort"),
        (["s1", "s2", "s3", "s4"], 2, "secagg-low-threshold"),
        (["s1", "s1", "s1"], 3, "secagg-wrong-sites"),
        (["s1", "s2", "s9"], None, "secagg-wrong-sites"),
        (["s2", "s3", "s4"], None, "secagg-wrong-sites"),
    ],
)
def test_a_cohort_that_is_too_small_or_not_the_agreed_one_gets_no_key(
    lying: Coordinator, roster: list[str], threshold: int | None, reason: str
) -> None:
    assert lying.keys(lying.plan(1, roster, threshold), "s1") == reason


def test_a_site_with_a_minimum_of_its_own_opens_no_smaller_sum(world: World, lying: Coordinator) -> None:
    world.policies["s1"]["min_cohort"] = 4
    assert lying.keys(lying.plan(1, ["s1", "s2", "s3"]), "s1") == "cohort"
    plan, offers = lying.masked(2, ALL)
    assert lying.open(plan, offers, "s1", ["s1", "s2", "s3"]) == "secagg-too-few"
    assert isinstance(lying.open(plan, offers, "s2", ["s1", "s2", "s3"]), bytes)  # whose rules allow it
    assert isinstance(lying.open(plan, offers, "s1", ALL), bytes)


def test_a_minimum_raised_after_the_vector_left_still_holds(world: World, lying: Coordinator) -> None:
    plan, offers = lying.masked(1, ALL)
    world.policies["s1"]["min_cohort"] = 4
    assert lying.open(plan, offers, "s1", ["s1", "s2", "s3"]) == "secagg-too-few"


@pytest.mark.parametrize("rule", [{"paused": True}, {"vetoed": [1]}, {"model_vetoed": True}])
def test_a_veto_holds_until_the_sum_is_opened(world: World, lying: Coordinator, rule: dict[str, Any]) -> None:
    plan, offers = lying.masked(1, ALL)
    world.policies["s1"] |= rule
    assert lying.open(plan, offers, "s1", ALL) in ("paused", "vetoed")
    world.policies["s1"].clear()
    assert isinstance(lying.open(plan, offers, "s1", ALL), bytes)


def test_a_key_that_its_site_did_not_sign_is_found(lying: Coordinator) -> None:
    plan = lying.plan(1, ALL)
    offers = lying.offers(plan)
    own = lying.member.members["s2"].sign
    said, _ = messages.opened_head("advertise", memoryview(offers["s2"].head), own)
    forged = messages.signed("advertise", {**said, "key": "ab" * 32}, b"", key(9).sign)
    offers["s2"] = replace(offers["s2"], head=forged)
    assert lying.train(plan, offers, "s1") == "secagg-forged"
    assert lying.world.trained == []


def test_nobody_gets_both_shares_of_a_site(lying: Coordinator) -> None:
    plan, offers = lying.masked(1, ALL)
    first = lying.open(plan, offers, "s1", ["s1", "s2", "s3"])
    assert isinstance(first, bytes)
    assert lying.open(plan, offers, "s1", ALL) == "secagg-repeated"
    assert lying.open(plan, offers, "s1", ["s1", "s2", "s4"]) == "secagg-repeated"
    assert (
        lying.open(plan, offers, "s1", ["s1", "s2", "s3"]) == first
    )  # asked again the same, it says the same


def test_who_helped_to_open_a_round_is_in_no_other_attempt_at_it(lying: Coordinator) -> None:
    """Or two sums would differ by one site."""
    plan, offers = lying.masked(1, ALL)
    lying.open(plan, offers, "s1", ALL)
    assert lying.keys(lying.plan(2, ["s1", "s2", "s3"]), "s1") == "again"
    plan, offers = _given_out_for_the_next_round(lying)
    assert lying.train(plan, offers, "s1", round_=1) == "again"
    assert lying.world.trained.count(("s1", 1)) == 1


def _given_out_for_the_next_round(lying: Coordinator) -> tuple[Plan, dict[str, Advertised]]:
    plan = lying.plan(5, ALL)
    body = wire.plan_message(lying.member, plan)
    offers = {
        site: coordinator.advertised(
            lying.member, plan, site, _sent(lying.say(site, wire.KEYS, 5, body, round_=2))
        )
        for site in ALL
    }
    return plan, offers


def test_an_attempt_that_was_left_is_never_opened(lying: Coordinator) -> None:
    first, offers = lying.masked(1, ALL)
    vectors = dict(lying.vectors)
    second, others = lying.masked(2, ALL)
    lying.vectors, later = vectors, lying.vectors
    assert lying.open(first, offers, "s1", ALL) == "again"
    lying.vectors = later
    assert isinstance(lying.open(second, others, "s1", ALL), bytes)


def test_an_attempt_is_masked_for_one_cohort(lying: Coordinator) -> None:
    plan = lying.plan(1, ALL)
    offers = lying.offers(plan)
    assert isinstance(lying.train(plan, offers, "s1"), bytes)
    fewer = {site: offers[site] for site in ("s1", "s2", "s3")}
    assert lying.train(plan, fewer, "s1") == "secagg-repeated"


def test_a_change_that_is_not_finite_never_leaves(world: World) -> None:
    world.changes["s2"] = lambda round_: np.full(LAYOUT.values, np.nan, np.float32)
    assert world.run() == 2
    assert ("s2", "failed") in world.refusals()
    for number in (1, 2):
        record = world.record(number)
        assert record is not None and sorted(record.updates) == ["s1", "s3", "s4"]
        assert record.refused["s2"] == "failed" and np.isfinite(world.moved(number)).all()


def test_a_change_above_the_bound_is_clipped_before_it_is_masked(tmp_path: Path) -> None:
    world = World(tmp_path, settings={"count": 1})
    direction = np.zeros(LAYOUT.values, np.float32)
    direction[3] = 1.0
    world.changes["s2"] = lambda round_: direction * np.float32(1e6)
    assert world.run() == 1
    world.changes["s2"] = lambda round_: direction  # of norm 1, the bound
    np.testing.assert_allclose(world.moved(1), world.mean(1, ALL), rtol=0, atol=2 * world.step())


def _changed(number: int, **said: Any) -> Callable[[bytes], bytes]:
    def lie(content: bytes) -> bytes:
        statement, body, _ = opened_update(content)
        return sealed_update(replace(statement, **said), bytes(body), key(number).sign)

    return lie


def _of_another_body(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def lie(content: bytes) -> bytes:
        statement, body, _ = opened_update(content)
        other = change(bytes(body))
        told = replace(statement, body=hashlib.sha256(other).hexdigest())
        return sealed_update(told, other, key(2).sign)

    return lie


@pytest.mark.parametrize(
    ("code", "counts", "lie"),
    [
        ("forged", False, _changed(9)),
        ("forged", False, lambda content: _unsigned(content)),
        ("body", True, lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        ("body", True, lambda content: content[:-4]),
        ("units", True, _changed(2, units=101)),  # more than it registered
        ("units", True, _changed(2, units=90)),  # and another weight than its vector has
        ("parent", True, _changed(2, parent="0" * 64)),
        ("federation", True, _changed(2, federation="0" * 64)),
        ("round", False, _changed(2, round=2)),
        ("packing", True, _changed(2, packing="f32")),
        ("masks", True, _of_another_body(lambda body: body + bytes(4))),
        ("masks", True, _of_another_body(lambda body: body[:-4])),
        ("masks", True, _of_another_body(lambda body: b"")),
        ("malformed", False, lambda content: b"x" * 100),
    ],
)
def test_the_gate_names_each_wrong_vector_and_the_others_finish(
    tmp_path: Path, code: str, counts: bool, lie: Callable[[bytes], bytes]
) -> None:
    world = World(tmp_path, settings={"count": 1})
    world.answered = lambda site, step, said: (
        lie(said) if (site, step) == ("s2", "train") and isinstance(said, bytes) else said
    )
    assert world.run() == 1
    record = world.record(1)
    assert record is not None and sorted(record.updates) == ["s1", "s3", "s4"]
    assert record.refused["s2"] == (code if counts else "late")
    assert code in {one["reason"] for one in world.told if one["what"] == "refused"}
    np.testing.assert_allclose(
        world.moved(1), world.mean(1, ["s1", "s3", "s4"]), rtol=0, atol=2 * world.step()
    )


def _unsigned(content: bytes) -> bytes:
    length = int.from_bytes(content[:4], "big")
    return content[: 4 + length] + bytes(64) + content[68 + length :]


def test_a_vector_of_an_earlier_attempt_counts_for_nothing(tmp_path: Path) -> None:
    """Somebody in between plays it again; the site's own answer still counts."""
    world = World(tmp_path, settings={"count": 1})
    sent: list[bytes] = []

    def replayed(site: str, step: str, said: bytes | str) -> bytes | str | None:
        if step != "train" or isinstance(said, str):
            return said
        if site == "s2":
            sent.append(said)
            return sent[0]
        return None if site in ("s3", "s4") and len(sent) == 1 else said  # the first attempt comes to nothing

    world.answered = replayed
    world.run()
    assert len(set(sent)) >= 2
    record = world.record(1)
    assert record is not None and sorted(record.updates) == ["s1", "s3", "s4"]
    assert record.refused["s2"] == "late" and ("s2", "round") in world.refusals()


def test_a_reveal_that_its_site_did_not_sign_is_not_taken(tmp_path: Path) -> None:
    world = World(tmp_path, settings={"count": 1})
    world.answered = lambda site, step, said: (
        wire.joined(b"\x00" * 80, b"") if (site, step) == ("s2", "open") else said
    )
    assert world.run() == 1
    assert ("s2", "masks") in world.refusals()
    np.testing.assert_allclose(world.moved(1), world.mean(1, ALL), rtol=0, atol=2 * world.step())


def test_a_question_that_is_none_is_answered_with_a_code(lying: Coordinator) -> None:
    for step, body in ((wire.KEYS, b""), (wire.TRAIN, b"\xff" * 9), (wire.OPEN, b"\x00" * 3), ("x", b"")):
        with pytest.raises((ValueError, KeyError)):
            lying.say("s1", step, 1, body)
