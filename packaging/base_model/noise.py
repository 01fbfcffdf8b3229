"""Messages as people write them: greetings, thanks, an aside, slips of the hand.

The intent stays that of the clean message. What is added is written here or taken from what
patients say in MTS-Dialog, so no further source comes in.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

OPENINGS = (
    "hi,",
    "hello,",
    "hello there.",
    "good morning,",
    "good afternoon.",
    "hey,",
    "hi again.",
    "dear team,",
    "sorry to bother you.",
    "quick question.",
    "not sure if this is the right place.",
    "i tried to call but nobody answered.",
    "my daughter is writing this for me.",
    "i hope you are well.",
    "just following up.",
)
CLOSINGS = (
    "thanks",
    "thank you so much.",
    "thanks in advance!",
    "please let me know.",
    "many thanks",
    "hope to hear from you soon.",
    "no rush.",
    "it is a bit urgent.",
    "i am home after five.",
    "kind regards",
    "let me know if you need anything else from me.",
    "cheers",
)


def noisy(text: str, asides: Sequence[str], dice: random.Random) -> str:
    """The message with each kind of noise now and then; `asides` are short sentences."""
    parts = [_slips(text, dice) if dice.random() < 0.4 else text]
    if dice.random() < 0.5:
        parts.insert(0, dice.choice(OPENINGS))
    if asides and dice.random() < 0.3:
        parts.insert(dice.randint(0, len(parts)), dice.choice(asides))
    if dice.random() < 0.4:
        parts.append(dice.choice(CLOSINGS))
    draw = dice.random()
    if draw < 0.4:
        parts = [part[:1].upper() + part[1:] for part in parts]
    elif draw < 0.6:
        parts = [part.lower() for part in parts]
    return " ".join(parts)


def _slips(text: str, dice: random.Random) -> str:
    """One to three letters swapped, lost or doubled."""
    for _ in range(dice.randint(1, 3)):
        places = [place for place in range(1, len(text) - 1) if text[place] in string.ascii_letters]
        if not places:
            return text
        place = dice.choice(places)
        letter, following = text[place], text[place + 1]
        text = (
            text[:place]
            + dice.choice((following + letter, following, letter + letter + following))
            + text[place + 2 :]
        )
    return text
