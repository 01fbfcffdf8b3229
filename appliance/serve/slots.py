"""Whose memory a request goes on from: which slot it gets, and how much of what is there it may reuse.

A slot remembers the tokens it has computed, and going on from them saves time. The time of an
answer therefore tells what was there. So a request reuses its own owner's tokens, and of anybody
else's only the start that both sides call public (the endpoint's template and system text). Neither
the slot nor the work before an answer depends on how another owner's text goes on.

Pure: no engine is known here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

_FEW = 16  # tokens: fewer of one's own are no reason to work apart from the others


@dataclass(kw_only=True)
class Slot:
    """What one slot of an engine remembers.

    `tokens` stand there from the start, computed with `adapter` for `owner` (None: for everybody);
    the first `public` of them are the endpoint's own. `tail`: tokens that nobody noted may follow.
    `used` grows with every use of any slot.
    """

    tokens: list[int] = field(default_factory=list)
    public: int = 0
    owner: str | None = None
    adapter: int | None = None
    tail: bool = False
    used: int = 0

    @property
    def private(self) -> bool:
        """Whether anything is remembered that only `owner` may reuse."""
        return self.tail or len(self.tokens) > self.public


@dataclass(frozen=True, kw_only=True)
class Choice:
    """`slot`, and the `keep` first tokens of the prompt that may stay in its memory.

    `drop`: what is there beyond them has to go before the prompt is computed.
    """

    slot: int
    keep: int
    drop: bool


def choose_slot(
    slots: Sequence[Slot],
    free: Collection[int],
    *,
    prompt: Sequence[int],
    owner: str | None,
    adapter: int | None = None,
    shared: int = 0,
    stored: int = 0,
) -> Choice:
    """The slot of `free` for `prompt`, whose first `shared` tokens are public.

    First the one with most of the owner's own tokens beyond the public ones; else one that
    remembers nothing private, the longest public start first; else one that has more of the public
    start than the `stored` tokens that can be put into any slot. Among equals the one beside those
    that work, as llama.cpp computes together only slots whose numbers follow each other; then the
    least recently used.
    """
    working = set(range(len(slots))) - set(free)

    def rank(place: int) -> tuple[int, bool, bool, int, int, int]:
        slot, kept = slots[place], reusable(slots[place], prompt, owner, adapter, shared)
        own = max(0, kept - shared) if slot.owner == owner else 0
        public = min(kept, shared) if not slot.private else max(0, min(kept, shared) - stored)
        own = own if own >= _FEW else 0
        return (-own, slot.private, slot.adapter != adapter, -public, _runs(working | {place}), slot.used)

    best = min(free, key=rank)
    slot = slots[best]
    mine = slot.owner == owner and slot.adapter == adapter and owner is not None
    keep = reusable(slot, prompt, owner, adapter, shared)
    return Choice(slot=best, keep=keep, drop=not mine and (slot.tail or len(slot.tokens) > keep))


def _runs(places: Collection[int]) -> int:
    return sum(place - 1 not in places for place in places)


def reusable(slot: Slot, prompt: Sequence[int], owner: str | None, adapter: int | None, shared: int) -> int:
    """How many leading tokens of `prompt` the slot remembers and the request may reuse."""
    if slot.adapter != adapter:
        return 0
    same = common(slot.tokens, prompt)
    return same if slot.owner == owner is not None else min(same, shared, slot.public)


def stored_prefix(prefixes: Iterable[tuple[int, ...]], prompt: Sequence[int], shared: int) -> tuple[int, ...]:
    """The longest of `prefixes` that lies within the `shared` first tokens of `prompt`; () if none does."""
    fitting = (one for one in prefixes if len(one) <= shared and list(one) == list(prompt[: len(one)]))
    return max(fitting, key=len, default=())


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
