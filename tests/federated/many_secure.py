"""Federations with secure rounds that a seed draws: who is lost, lies, restarts or is killed, and when."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
from secure_world import Message, World

from federated.secure import pinned
from federated.words import why


class Secure(World):
    """A federation whose coordinator sees sums alone."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = random.Random(f"secure {seed}")
        sites = self.draw.randint(3, 7)
        agreed = {"count": self.draw.randint(1, 3), "quorum": self.draw.randint(3, sites)}
        super().__init__(folder, sites=sites, settings=agreed)
        self.units = {name: self.draw.randint(1, 100) for name in self.names}
        self.liars = {name for name in self.names if self.draw.random() < 0.1}
        self.asked, self.answered = self._asks, self._answers
        self.seen: Counter[str] = Counter()
        self.quiet = False

    def chance(self, share: float) -> bool:
        """Whether something goes wrong now."""
        return not self.quiet and self.draw.random() < share

    def answer(self, name: str, head: Message, body: bytes) -> bytes | str:
        """As federated/member.py answers what cannot be read."""
        try:
            return super().answer(name, head, body)
        except (ValueError, KeyError, TypeError, ArithmeticError):
            return "malformed"

    def _asks(self, site: str, step: str, body: bytes) -> bytes | None:
        for name in sorted(self.gone):
            if self.draw.random() < 0.1:
                self.gone.discard(name)
        if self.chance(0.02):
            self.seen["gone"] += 1
            self.gone.add(site)
            return None
        if self.chance(0.02):
            self.seen["killed"] += 1
            raise KeyboardInterrupt
        if self.chance(0.05):
            self.seen["restarted"] += 1
            self.seats[site] = self.seat(site)
        if self.chance(0.02):
            self.seen["lost question"] += 1
            return None
        return self._spoilt(body) if self.chance(0.02) else body

    def _answers(self, site: str, step: str, said: bytes | str) -> bytes | str | None:
        if self.chance(0.03):
            self.seen["lost answer"] += 1
            return None
        if self.chance(0.02):
            self.seen["killed"] += 1
            raise KeyboardInterrupt
        if isinstance(said, bytes) and (self.chance(0.02) or (site in self.liars and self.chance(0.4))):
            return self._spoilt(said)
        return said

    def _spoilt(self, content: bytes) -> bytes:
        self.seen["spoilt"] += 1
        if not content or self.draw.random() < 0.2:
            return content[: self.draw.randint(0, len(content))]
        other = bytearray(content)
        other[self.draw.randrange(len(other))] ^= 1 + self.draw.randrange(255)
        return bytes(other)

    def rounds(self) -> None:
        """All rounds; the coordinator is started again each time it is killed or gives up."""
        for tried in range(40):
            self.quiet = tried > 30
            if tried % 5 == 4:
                self.gone.clear()
            try:
                if self.run(looks=40) == self.federation.rounds.count:
                    return
            except KeyboardInterrupt:
                continue

    def check(self) -> int:
        """What must hold of all that was committed; returns the number of rounds."""
        number, rounds = 0, self.federation.rounds
        while record := self.record(number + 1):
            number += 1
            assert all("not known here" not in why(code)[0] for code in record.refused.values())
            assert not set(record.updates) & set(record.refused)
            if record.rule == "skipped":
                self.seen["skipped"] += 1
                assert record.updates == {} and not self.moved(number).any()
                continue
            sites = sorted(record.updates)
            assert record.rule == "secure mean" and len(sites) >= max(3, rounds.quorum)
            assert all((name, number) in self.trained for name in sites)
            counted = {name: pinned.weight_of(self.federation, self.units[name]) for name in sites}
            assert record.weights == {
                name: pinned.units_of(self.federation, one) for name, one in counted.items()
            }
            np.testing.assert_allclose(
                self.moved(number), self.mean(number, sites), rtol=0, atol=2 * self.step()
            )
        assert len(self.trained) == len(set(self.trained)), "a round was paid twice"
        for one in self.told:
            if one["what"] in ("refused", "refusal"):
                assert one["site"] in self.names and "not known here" not in why(one["reason"])[0]
                self.seen[f"refused {one['reason']}"] += 1
        return number
