"""Which slot a request gets, and what it may reuse there: never another owner's own tokens."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from appliance.serve.slots import Choice, Slot, choose_slot, stored_prefix

PUBLIC = [1, 2, 3, 4]
OWN = [7] * 20


def ask(slots: list[Slot], prompt: list[int], owner: str = "a", **rest: int | None) -> Choice:
    return choose_slot(slots, range(len(slots)), prompt=prompt, owner=owner, **{"shared": 4, **rest})


def test_first_ones_own_then_a_public_one_then_the_longest_unused() -> None:
    mine = Slot(tokens=[*PUBLIC, *OWN, 8], public=4, owner="a", used=1)
    other = Slot(tokens=[*PUBLIC, *OWN, 8, 9], public=4, owner="b", used=2)
    public = Slot(tokens=[*PUBLIC], public=4, used=9)
    late = Slot(tokens=[5], owner="b", used=3)
    assert ask([other, mine, public], [*PUBLIC, *OWN, 8, 9]) == Choice(slot=1, keep=25, drop=False)
    # An own slot that shares no more than the public tokens keeps its memory for the next question.
    assert ask([mine, public, other], [*PUBLIC, 5]) == Choice(slot=1, keep=4, drop=False)
    assert ask([late, other], [*PUBLIC, 7, 8, 9]) == Choice(slot=1, keep=4, drop=True)
    assert ask([other, late], [6, 6], shared=0).slot == 0
    assert ask([late, other], [*PUBLIC, 7, 8, 9], stored=4).slot == 1  # used before `late`
    assert ask([replace(late, used=1), other], [*PUBLIC, 7, 8, 9], stored=4).slot == 0
    assert ask([other, Slot()], [*PUBLIC, 7], owner="c") == Choice(slot=1, keep=0, drop=False)


def test_what_one_side_calls_private_is_private() -> None:
    other = [Slot(tokens=[*PUBLIC, 7, 8], public=2, owner="b")]
    assert ask(other, [*PUBLIC, 7]) == Choice(slot=0, keep=2, drop=True)
    assert ask(other, [*PUBLIC, 7], shared=1) == Choice(slot=0, keep=1, drop=True)
    assert ask([replace(other[0], owner="a")], [*PUBLIC, 7]) == Choice(slot=0, keep=5, drop=False)
    # An answer that nobody noted may follow, and the prompt may spell it.
    unseen = [Slot(tokens=[*PUBLIC], public=4, owner="b", tail=True)]
    assert ask(unseen, [*PUBLIC, 7]) == Choice(slot=0, keep=4, drop=True)
    # What stands in no owner's name is nobody's own.
    assert choose_slot([Slot(tokens=[7, 8])], [0], prompt=[7, 8], owner=None).keep == 0


def test_among_equals_the_one_beside_those_that_work() -> None:
    """llama.cpp computes slots together only if their numbers follow each other without a gap."""
    slots = [Slot(used=9 - place) for place in range(6)]

    def chosen(*free: int) -> int:
        return choose_slot(slots, free, prompt=[*PUBLIC, 7], owner="a").slot

    assert chosen(0, 1, 2, 3, 4, 5) == 5  # nobody works: the one least recently used
    assert chosen(0, 1, 3, 4, 5) == 3  # beside slot 2, on the side that was used longer ago
    assert chosen(1, 3, 4, 5) == 1  # between 0 and 2
    slots[4] = Slot(tokens=[*PUBLIC, 7, 7], public=4, owner="a", used=1)
    assert chosen(0, 1, 3, 4, 5) == 3  # two tokens of one's own are no reason
    slots[4] = Slot(tokens=[*PUBLIC, *OWN], public=4, owner="a", used=1)
    assert choose_slot(slots, (0, 3, 4, 5), prompt=[*PUBLIC, *OWN, 8], owner="a").slot == 4


def test_memory_belongs_to_its_adapter() -> None:
    slots = [Slot(tokens=[*PUBLIC, *OWN], public=4, owner="a", adapter=1), Slot(used=3)]
    assert ask(slots, [*PUBLIC, *OWN]) == Choice(slot=1, keep=0, drop=False)
    assert ask(slots, [*PUBLIC, *OWN], adapter=1) == Choice(slot=0, keep=24, drop=False)
    assert ask(slots[:1], [*PUBLIC, *OWN], adapter=0) == Choice(slot=0, keep=0, drop=True)


tokens = st.lists(st.integers(1, 3), max_size=6)
slot = st.builds(
    Slot,
    tokens=tokens,
    public=st.integers(0, 3),
    owner=st.sampled_from([None, "a", "b"]),
    adapter=st.sampled_from([None, 0]),
    tail=st.booleans(),
    used=st.integers(0, 9),
)


@given(st.lists(slot, min_size=1, max_size=4), tokens, st.integers(0, 6), st.integers(0, 3), st.data())
def test_the_choice_tells_nothing_of_another_owners_text(
    slots: list[Slot], prompt: list[int], shared: int, stored: int, data: st.DataObject
) -> None:
    """Other texts of the same length in the place of all other owners': the same choice."""
    hidden = [
        one
        if one.owner == "a"
        else replace(
            one,
            tokens=[
                *one.tokens[: one.public],
                *(data.draw(st.integers(1, 3)) for _ in one.tokens[one.public :]),
            ],
        )
        for one in slots
    ]
    rest = {"shared": shared, "stored": min(stored, shared)}
    assert ask(slots, prompt, **rest) == ask(hidden, prompt, **rest)


def test_the_longest_stored_prefix_within_the_shared_tokens() -> None:
    prefixes = [(1, 2), (1, 2, 3), (1, 2, 3, 4), (9,)]
    assert stored_prefix(prefixes, [1, 2, 3, 4, 5], 3) == (1, 2, 3)
    assert stored_prefix(prefixes, [1, 2, 3, 4, 5], 5) == (1, 2, 3, 4)
    assert stored_prefix(prefixes, [1, 2], 9) == (1, 2)
    assert stored_prefix(prefixes, [5], 1) == ()
