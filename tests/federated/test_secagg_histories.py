"""Whatever a coordinator says to whom, it opens no vector of a single honest site, in any history."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from secagg_support import Network, Round, federation, lattice, names

from federated.secagg import coordinator, masks, messages
from federated.secagg.context import Asked
from federated.secagg.coordinator import Advertised, dropped
from federated.secagg.federation import Plan, least_threshold
from federated.secagg.privacy import least_together
from federated.secagg.refused import Refused


class Lies(RuleBasedStateMachine):
    """A coordinator that says anything to anyone; `helping` sites give it all they have.

    What it can open is worked out from the shares in the answers it gets: a mask of a pair is known when one
    of the round keys is, or one of the two helps; sites that are joined by unknown masks only show their sum.
    """

    @initialize(count=st.integers(3, 7), data=st.data())
    def start(self, count: int, data: st.DataObject) -> None:
        minimum = data.draw(st.integers(3, count))
        self.net = Network(federation(count, minimum), lattice(values=1))
        self.names = names(count)
        most = min(2 * least_threshold(sites) - sites for sites in range(minimum, count + 1)) - 1
        self.helping = set(self.names[: data.draw(st.integers(0, most))])
        self.offers: dict[Plan, dict[str, Advertised]] = {}
        self.sent: dict[tuple[Asked, str], bytes] = {}
        self.revealed: dict[tuple[Asked, str, str], str] = {}

    @rule(number=st.integers(1, 3), data=st.data())
    def open(self, number: int, data: st.DataObject) -> None:
        roster = sorted(
            data.draw(st.just(set(self.names)) | st.sets(st.sampled_from(self.names), min_size=2))
        )
        usual = least_threshold(len(roster))
        plan = Plan(
            round=number,
            roster=tuple(roster),
            threshold=data.draw(st.just(usual) | st.integers(1, len(roster))),
        )
        for name in data.draw(st.just(roster) | st.lists(st.sampled_from(self.names))):
            try:
                content = self.net.advertise(name, plan)
            except Refused:
                continue
            found = coordinator.advertised(self.net.federation, plan, name, content)
            self.offers.setdefault(plan, {})[name] = found

    @rule(data=st.data())
    def train(self, data: st.DataObject) -> None:
        if not self.offers:
            return
        plan = data.draw(st.sampled_from(sorted(self.offers, key=repr)))
        offers = dict(self.offers[plan])
        cohort = sorted(
            data.draw(st.just(set(offers)) | st.sets(st.sampled_from(sorted(offers)), min_size=1))
        )
        for other in self.offers.values():  # a key of another round or plan instead
            name = data.draw(st.none() | st.sampled_from(sorted(other)))
            if name in offers and data.draw(st.integers(0, 9)) == 0:
                offers[name] = replace(other[name], parcels={**offers[name].parcels, **other[name].parcels})
        said = data.draw(st.just(plan) | st.builds(replace, st.just(plan), threshold=st.integers(1, 7)))
        asked = Asked(plan=said, cohort=tuple(cohort), about="a" * 64, bits=32, values=1)
        turn = Round(network=self.net, plan=said, offers=offers, asked=asked)
        for name in data.draw(st.just(cohort) | st.lists(st.sampled_from(cohort))):
            try:
                self.sent[asked, name] = self.net.masked(name, turn.request(name), np.zeros(1, np.int64))
            except Refused:
                continue

    @rule(data=st.data())
    def unmask(self, data: st.DataObject) -> None:
        if not self.sent:
            return
        asked = data.draw(st.sampled_from(sorted({asked for asked, _ in self.sent}, key=repr)))
        there = [name for of, name in self.sent if of == asked]
        for name in data.draw(st.just(there) | st.lists(st.sampled_from(there))):  # each another list
            survivors = data.draw(
                st.sets(st.sampled_from(there), min_size=min(len(there), asked.plan.threshold))
            )
            gathered = self._gathered(asked, sorted(survivors | {name}))
            try:
                answer = self.net.reveal(
                    name, coordinator.unmask_message(self.net.federation, asked, gathered, name)
                )
            except (Refused, KeyError):
                continue
            self._note(asked, name, answer, gathered.survivors)

    def _gathered(self, asked: Asked, survivors: list[str]) -> coordinator.Gathered:
        parcels = {}
        for name in survivors:
            _, _, body = messages.opened(
                "masked", self.sent[asked, name], self.net.federation.members[name].sign
            )
            parcels[name] = coordinator.parcels_of(body[4:], [one for one in asked.cohort if one != name])
        return coordinator.Gathered(
            total=masks.words(np.zeros(1, np.int64), 32),
            weights=dict.fromkeys(survivors, 1),
            commitments={},
            parcels=parcels,
            refused={},
            unread={},
        )

    def _note(self, asked: Asked, name: str, answer: bytes, survivors: tuple[str, ...]) -> None:
        _, _, body = messages.opened("reveal", answer, self.net.federation.members[name].sign)
        gathered, context = self._gathered(asked, list(survivors)), asked.context(self.net.federation.id)
        for number, peer in enumerate(asked.cohort):
            share = bytes(body[number * 32 : number * 32 + 32])
            kinds = set()
            for what, where, parcels in (
                ("key", asked.plan.digest(self.net.federation.id), self.offers[asked.plan][peer].parcels),
                ("seed", context, gathered.parcels.get(peer, {})),
            ):
                about = messages.label(what, self.net.federation.id, asked.plan.round, where, peer, name)
                if name in parcels and messages.share_digest(share, about) == messages.digest_in(
                    parcels[name]
                ):
                    kinds.add(what)
            if peer == name:
                kinds.add("seed")
            assert len(kinds) == 1
            kind = kinds.pop()
            assert kind == ("key" if peer in dropped(asked, survivors) else "seed")
            assert self.revealed.get((asked, peer, name), kind) == kind, "both, one after the other"
            self.revealed[asked, peer, name] = kind

    def _known(self, asked: Asked, peer: str, kind: str) -> bool:
        honest = sum(
            of.plan == asked.plan and (kind == "key" or of == asked) and dealer == peer and found == kind
            for (of, dealer, holder), found in self.revealed.items()
            if holder not in self.helping
        )
        return (
            peer in self.helping
            or honest + len(self.helping & set(asked.plan.roster)) >= asked.plan.threshold
        )

    @invariant()
    def no_honest_site_stands_alone(self) -> None:
        for asked in {asked for asked, _ in getattr(self, "sent", {})}:
            honest = [name for name in asked.cohort if name not in self.helping]
            key = {name for name in honest if self._known(asked, name, "key")}
            seed = {name for name in honest if self._known(asked, name, "seed")}
            assert not key & seed, "both secrets of one site"
            joined = [name for name in honest if name not in key]  # all pairs of these are unknown
            if joined and all(name in seed and (asked, name) in self.sent for name in joined):
                helping = len(self.helping & set(asked.plan.roster))
                least = least_together(len(asked.plan.roster), asked.plan.threshold, helping)
                assert len(joined) >= least and (len(joined) >= 2 or len(honest) == 1)


def test_no_lie_opens_a_single_vector() -> None:
    run_state_machine_as_test(Lies, settings=settings(max_examples=20, stateful_step_count=12, deadline=None))


@pytest.mark.soak
def test_no_lie_opens_a_single_vector_however_often_it_is_tried() -> None:
    run_state_machine_as_test(
        Lies, settings=settings(max_examples=3000, stateful_step_count=30, deadline=None)
    )
