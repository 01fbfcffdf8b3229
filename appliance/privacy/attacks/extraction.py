"""Test D, second half: does the model recite what it was trained on?

Near-verbatim: a continuation of a record's beginning, greedy or one of 20 sampled, is within 10 % edit
distance of what the record says (Ippolito et al. 2023). The base, which never saw the records, and
records that were held out are the controls: what those give too is common speech, not memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import fisher_exact

LEAST_ANSWER = 50  # tokens an answer needs
MOST = 50  # tokens given, and tokens asked for
NEAR = 0.1  # of the length, in edits
SAMPLES = 20  # tries at temperature 1, beside the greedy one
_LEVEL = 0.01


class Following:
    """The edit distance of a growing text to `target` (tokens), given up once it must pass `limit`."""

    def __init__(self, target: Sequence[int]) -> None:
        self._target = target
        self._row = list(range(len(target) + 1))
        self.limit = int(NEAR * len(target))
        self.count = 0

    def add(self, token: int) -> None:
        """Take the next token."""
        self.count += 1
        before, row = self._row, [self.count]
        for place, wanted in enumerate(self._target):
            row.append(min(before[place] + (wanted != token), before[place + 1] + 1, row[place] + 1))
        self._row = row

    @property
    def lost(self) -> bool:
        """Whether no further token can bring it back within the limit."""
        return min(self._row) > self.limit

    @property
    def near(self) -> bool:
        """Whether what was taken so far is within the limit of the whole target."""
        return self._row[-1] <= self.limit

    @property
    def done(self) -> bool:
        """Whether as many tokens were taken as the target has."""
        return self.count >= len(self._target)


def beyond_chance(members: int, of_members: int, others: int, of_others: int) -> bool:
    """Whether members are recited more often than held-out records, by Fisher's exact test at 1 %."""
    table = [[members, of_members - members], [others, of_others - others]]
    return bool(fisher_exact(table, alternative="greater").pvalue < _LEVEL)


def cut_points(answer: int) -> tuple[int, int]:
    """How many tokens of an answer of `answer` tokens are given, and how many are then asked for."""
    given = min(MOST, answer // 2)
    return given, min(MOST, answer - given)
