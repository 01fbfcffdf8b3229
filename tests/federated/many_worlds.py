"""Federations that a seed draws: sites, rules, lies, losses, stragglers, restarts, sites dropped for good.

The coordinator's and the sites' code is the product's; the link, the training and the lies are made here.
What must hold is asserted while it runs and at the end (`Plain.check`).
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lies import LIES, Lie, told_lie
from world import LAYOUT, World, key

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home, open_home
from appliance.privacy import ledger
from appliance.privacy.accountant import Steps
from federated import checkpoint, course, description
from federated.admit import Admitted
from federated.aggregate import least_sites, weights
from federated.layout import Array
from federated.packing import unpack
from federated.rounds import Round, next_step
from federated.update import opened_update
from federated.words import why

_TICK = 61.0  # seconds: longer than a deadline
_RULES = ("mean", "mean", "median", "trimmed-mean", "krum")
_STEPS = Steps(noise_multiplier=1.0, sample_rate=0.05, steps=100)


def settings(draw: random.Random) -> tuple[int, dict[str, Any]]:
    """How many sites, and on what they agreed."""
    sites = draw.randint(3, 9)
    rule = draw.choice([one for one in _RULES if least_sites(one) <= sites])  # type: ignore[arg-type]
    cohort = draw.randint(2, 4)
    least = min(sites, max(cohort, least_sites(rule)))  # type: ignore[arg-type]
    return sites, {
        "count": draw.randint(1, 5),
        "rule": rule,
        "min_cohort": min(cohort, least),
        "quorum": draw.randint(least, max(least, sites - 2)),
        "packing": draw.choice(["f32", "f16", "i8"]),
        "clip_bound": draw.choice([0.3, 1.0, 5.0]),
        "weight_clamp": draw.choice([1.0, 2.0, 10.0]),
        "server": draw.choice(["fedavg", "fedavg", "fedadam"]),
        "server_learning_rate": draw.choice([1.0, 0.5]),
    }


class Plain(World):
    """A federation whose coordinator sees the updates. `real` has each site charge the product's ledger."""

    def __init__(self, folder: Path, seed: int, *, real: bool = False) -> None:
        draw = random.Random(f"federation {seed}")
        sites, agreed = settings(draw)
        self.homes: dict[str, Home] = {}
        super().__init__(folder=folder, seed=seed, sites=sites, settings=agreed)
        self.draw = draw
        self.files = {1: self.file}
        self.liars = {name for name in self.seats if draw.random() < 0.2}
        self.budget = {name: draw.choice([2, *[100] * 5]) for name in self.seats}
        self.good: dict[tuple[str, int], set[bytes]] = defaultdict(set)
        self.codes: dict[bytes, str] = {}  # what a lie must be refused with in its own round
        self.seen: Counter[str] = Counter()
        self.dropped: dict[str, int] = {}
        self.agreed: dict[int, str] = {}
        if real:
            self._open_ledgers()

    def _open_ledgers(self) -> None:
        for name in self.seats:
            home = self.homes[name] = open_home(self.folder / f"{name}-home")
            ledger.open_budget(home, "d", unit="patient", units=500, delta=1e-4, who="ana")
            self.budget[name] = 100  # the ledger itself says when
        self.seats = {name: self.seat(name) for name in self.seats}

    def seat(self, name: str) -> Any:
        """A site's process, as after a start; with a ledger, it is charged before the training."""
        made = super().seat(name)
        if name not in self.homes:
            return made
        home, train = self.homes[name], made.train
        limit = 1.5 if int(name[1:]) % 2 else 8.0

        def charged(adapter: Array, round_: int) -> Any:
            purse = ledger.Purse(home, "d", job="0001", run=replace(_STEPS), limit=limit)
            purse.charge(20, round=round_)
            return train(adapter, round_)

        return replace(made, train=charged)

    def run(self) -> None:
        """All rounds, to the end or until they cannot go on."""
        clock, late = 0.0, list[tuple[str, Any]]()
        for _ in range(120):
            number, _ = self.course.last()
            if number >= self.federation.rounds.count:
                return
            state = checkpoint.kept_round(self.course.home, number + 1)
            there = [name for name in self.seats if not self.chance(0.1)]
            if state is None:
                self._perhaps_dropped(number + 1)
                try:
                    state = course.begin(self.course, there, now=clock)
                except ConfigWrong:
                    clock += _TICK
                    continue
                self.agreed[state.number] = self.course.digest
            state, late = self._asked(state, late)
            clock += _TICK
            step = next_step(state, now=clock, quorum=self.federation.rounds.quorum)
            if step == "aggregate":
                self._closed(state)
            elif step == "ask-again":
                course.ask_again(self.course, state, there, now=clock)
            elif step == "give-up":
                self.seen["given up"] += 1
                return

    def _asked(self, state: Round, late: list[tuple[str, Any]]) -> tuple[Round, list[tuple[str, Any]]]:
        link = late
        for name in state.open:
            if not self.chance(0.1):
                link = link + self._answered(name, state)
        self.draw.shuffle(link)
        held = [one for one in link if self.chance(0.1)]
        self.seen["straggler"] += len(held)
        for name, content in link:
            if (name, content) in held and not self.chance(0.3):  # some come now and once more
                continue
            if self.chance(0.1):
                state = self._restarted(state)
            if isinstance(content, bytes):
                state = self._received(state, content)
            else:
                state = course.objected(self.course, state, name, content)
                assert name not in state.cohort or name in state.admitted or state.refused[name] == content
                self.seen[content] += 1
        return state, held

    def _answered(self, name: str, state: Round) -> list[tuple[str, Any]]:
        found = super().answered(name, self.request(state))
        honest = next((one for _, one in found if one in self.sent.get((name, state.number), ())), None)
        if honest is None:
            return found
        again = random.Random(f"{self.seed} {name} {state.number}")
        if name not in self.liars or again.random() < 0.3:
            self.good[name, state.number].add(honest)
            return found
        lie: Lie = again.choice(LIES)
        content, code = told_lie(lie, honest, key(int(name[1:])), self.federation, again)
        if lie == "second":
            self.good[name, state.number] |= {honest, content}
            return [*found, (name, content)]
        if code is None:
            self.good[name, state.number].add(content)
        else:
            self.codes[content] = code
        return [(name, content)]

    def _received(self, state: Round, content: bytes) -> Round:
        before = dict(state.admitted)
        state, found = course.receive(self.course, state, content)
        if isinstance(found, Admitted):
            site = found.statement.site
            assert content in self.good[site, state.number], "admitted, and nobody may send it"
            assert site not in before or before[site] == found.statement.body
            return state
        self.seen[found.code] += 1
        assert state.admitted == before
        if found.proven and found.code not in ("round", "second") and found.site in state.open:
            raise AssertionError(f"{found.site} was refused and nobody kept it")
        if (wanted := self.codes.get(content)) is not None:
            assert found.code == self._expected(wanted, state, content, before), (found, wanted)
        return state

    def _expected(self, code: str, state: Round, content: bytes, before: dict[str, str]) -> str:
        """What a lie is refused with now: what is looked at earlier may be wrong as well."""
        if code in ("malformed", "stranger"):
            return code
        statement, _, _ = opened_update(content)
        if statement.site in self.dropped:
            return "out"
        if code == "forged":
            return code
        if code == "federation" or statement.federation != self.course.digest:
            return "federation"
        if statement.round != state.number:
            return "round"
        if code in ("round", "parent"):  # a lie about the round that has become true is none about the parent
            return "parent"
        if code == "packing":
            return code
        return "second" if before.get(statement.site, statement.body) != statement.body else code

    def _restarted(self, state: Round) -> Round:
        self.seen["restart"] += 1
        self.course = replace(self.course)  # nothing stays in memory
        kept = checkpoint.kept_round(self.course.home, state.number)
        assert kept == state, "what was said to be taken was not kept"
        return kept

    def _perhaps_dropped(self, number: int) -> None:
        """The next version of the agreement has a site less."""
        active = [site.name for site in self.federation.active()]
        if not self.chance(0.05) or len(active) <= self.federation.rounds.quorum:
            return
        gone = self.draw.choice(active)
        self.dropped[gone] = number
        self.seen["dropped"] += 1
        sites = [
            one.model_copy(update={"state": "dropped"}) if one.name == gone else one
            for one in self.federation.sites
        ]
        self.federation = self.federation.model_copy(
            update={"sites": sites, "version": self.federation.version + 1}
        )
        self.file = description.written(self.federation)
        self.signature = key(0).sign(description.PURPOSE + self.file)
        self.course = replace(self.course, federation=self.federation, digest=description.digest(self.file))

    def _closed(self, state: Round) -> None:
        copy = None
        if self.chance(0.4):
            copy = self.folder / "copy"
            shutil.copytree(self.course.home, copy)
        self.closed(state)
        if copy is not None:
            self._same_again(copy, state)
            shutil.rmtree(copy)

    def _same_again(self, copy: Path, state: Round) -> None:
        """Taken anew in another order by a coordinator that is started again each time, to the same bytes."""
        self.seen["done again"] += 1
        number = state.number
        again = replace(self.course, home=copy)
        updates = [
            (checkpoint.folder_of(copy, number) / "updates" / site).read_bytes() for site in state.admitted
        ]
        self.draw.shuffle(updates)
        checkpoint.keep_round(copy, replace(state, admitted={}))
        for content in updates:
            kept = checkpoint.kept_round(copy, number)
            assert kept is not None
            _, found = course.receive(replace(again), kept, content)
            assert isinstance(found, Admitted)
        kept = checkpoint.kept_round(copy, number)
        assert kept is not None
        course.close(replace(again), kept)
        for name in ("change", "state"):
            one, other = (checkpoint.folder_of(home, number) / name for home in (self.course.home, copy))
            assert one.read_bytes() == other.read_bytes(), name
        records = [
            checkpoint.read_record(home, number, self.federation.coordinator_key)
            for home in (self.course.home, copy)
        ]
        assert records[0] == records[1]

    def check(self) -> int:
        """What must hold of all that was committed; returns the number of rounds."""
        rounds, layout = self.federation.rounds, LAYOUT
        adapter, left, number = self.start, np.zeros_like(self.start), 0
        first = second = np.zeros_like(self.start)
        while record := checkpoint.read_record(self.course.home, number + 1, self.federation.coordinator_key):
            number += 1
            state = checkpoint.kept_round(self.course.home, number)
            assert state is not None and record.federation == self.agreed[number]
            assert len(record.updates) >= rounds.quorum >= rounds.min_cohort
            assert set(record.updates) | set(record.refused) == set(state.cohort), "somebody is not named"
            assert not set(record.updates) & set(record.refused)
            assert all("not known here" not in why(code)[0] for code in record.refused.values())
            assert not {site for site, since in self.dropped.items() if since <= number} & set(state.cohort)
            units, changes = {}, {}
            for site, body in record.updates.items():
                statement, packed = self._sent_by(site, number, body)
                units[site], changes[site] = statement.units, unpack(packed, layout.values, rounds.packing)
                assert np.linalg.norm(changes[site].astype(float)) <= rounds.clip_bound * (1 + 1e-5)
                assert self.trained[site] >= 1
            counted = weights(units, rounds.weight_clamp)
            assert counted == record.weights
            change = reference(rounds.rule, changes, counted, rounds.trim)
            first, second = 0.9 * first + 0.1 * change, 0.99 * second + 0.01 * change**2
            step = first / (np.sqrt(second) + 1e-3) if rounds.server == "fedadam" else change
            after = checkpoint.read_state(self.course.home, layout, record)
            np.testing.assert_allclose(
                after.adapter + after.left,
                adapter + left + rounds.server_learning_rate * step,
                atol=1e-4 if rounds.server == "fedadam" else 1e-5,
            )
            adapter, left = after.adapter, after.left
        for name in self.seats:
            assert all(len(contents) == 1 for contents in self.sent.values()), "two answers to one round"
            assert self.trained[name] <= self.charged[name] <= self.budget[name]
        for name, home in self.homes.items():
            found = ledger.budget(home, "d")
            steps = sum(part.steps for part in ledger.charged(home, "d", "0001"))
            assert found is not None and steps == 20 * self.charged[name]
            assert found.spent() <= (1.5 if int(name[1:]) % 2 else 8.0)
        return number

    def _sent_by(self, site: str, number: int, body: str) -> tuple[Any, memoryview]:
        for content in self.good[site, number]:
            statement, packed, signed_by = opened_update(content)
            if hashlib.sha256(packed).hexdigest() == body:
                assert (
                    statement.site == site
                    and statement.round == number
                    and signed_by(
                        bytes.fromhex(next(one.key for one in self.federation.sites if one.name == site))
                    )
                )
                return statement, packed
        raise AssertionError(f"{site} did not send what counts for it in round {number}")


def reference(rule: str, changes: dict[str, Array], counted: dict[str, int], trim: float) -> Any:
    """The average, by plain numpy."""
    names = sorted(changes)
    stack = np.array([changes[name] for name in names], dtype=np.float64)
    if rule == "mean":
        return np.average(stack, axis=0, weights=[counted[name] for name in names])
    if rule == "median":
        return np.median(stack, axis=0)
    if rule == "trimmed-mean":
        cut = int(trim * len(names))
        return np.sort(stack, axis=0)[cut : len(names) - cut].mean(axis=0)
    apart = ((stack[:, None] - stack[None]) ** 2).sum(axis=2)
    near = len(names) - (len(names) - 3) // 2 - 2
    score = [np.sort(np.delete(apart[row], row))[:near].sum() for row in range(len(names))]
    return stack[int(np.argmin(score))]
