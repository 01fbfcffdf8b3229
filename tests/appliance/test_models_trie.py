"""The label trie admits exactly the labels' own token sequences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import ConfigWrong
from appliance.models.trie import LabelTrie

_TOKENS = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@given(st.lists(_TOKENS, min_size=1, max_size=8, unique=True))
def test_every_walk_ends_at_a_label_and_every_label_has_its_walk(sequences: list[tuple[int, ...]]) -> None:
    trie = LabelTrie({str(place): tokens for place, tokens in enumerate(sequences)}, end=0)
    found: dict[str, tuple[int, ...]] = {}
    open_walks: list[tuple[int, ...]] = [()]
    while open_walks:
        walk = open_walks.pop()
        allowed = trie.allowed(walk)
        label = trie.label(walk)
        assert (label is None) == bool(allowed)
        if label is not None:
            found[label] = walk
        open_walks += [(*walk, token) for token in allowed]
    assert {label: tuple(t for t in walk if t) for label, walk in found.items()} == {
        str(place): tokens for place, tokens in enumerate(sequences)
    }


def test_two_labels_with_the_same_tokens_are_refused() -> None:
    with pytest.raises(ConfigWrong):
        LabelTrie({"a": (1,), "b": (1,)}, end=0)
