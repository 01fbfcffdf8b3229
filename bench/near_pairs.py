"""Pairs of questions to a hospital and a bank, by a grammar: the same in other words, or not the same.

Every pair of `different` asks for another answer although most of its letters agree: negated, roles
swapped, another number, unit, drug, name, time, comparative. `same` rewrites a question and keeps its
meaning. One seed gives the same pairs everywhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

Pair = tuple[str, str, str]  # kind, one, other

SLOTS: dict[str, tuple[str, ...]] = {
    "not": ("", "not "),
    "n": ("5", "50", "15", "1.5", "500"),
    "unit": ("mg", "mcg", "ml", "g"),
    "drug": ("ibuprofen", "insulin", "warfarin", "metformin", "amoxicillin", "aspirin"),
    "when": ("before", "after", "during"),
    "who": ("adults", "children", "my mother", "a diabetic", "pregnant women"),
    "role": ("nurse", "doctor", "pharmacist", "branch manager", "clerk", "auditor"),
    "name": ("Anna Well", "Anna Wells", "Peter Novak", "Petra Novak", "Dr Roberts", "Dr Robert"),
    "day": ("on Monday", "on Tuesday", "tomorrow", "today", "in May", "next week", "last week"),
    "clock": ("9:30", "19:30", "8 am", "8 pm", "noon"),
    "account": ("savings account", "current account", "account 4711", "account 4712", "euro account"),
    "more": ("higher", "lower", "longer", "shorter"),
    "with": ("with", "without"),
    "most": ("maximum", "minimum", "usual", "first"),
    "event": ("operation", "scan", "vaccine", "transfusion"),
    "city": ("Ljubljana", "Maribor", "Koper", "Celje"),
    "over": ("above", "below", "of exactly", "of at least", "of at most"),
    "was": ("Is", "Was"),
    "must": ("Can", "Must", "Should", "Could"),
    "whose": ("my", "his", "her", "their"),
    "times": ("once", "twice", "three times"),
}
TEMPLATES = (
    "Is it safe to {not}take {n} {unit} of {drug} {when} the operation for {who}?",
    "{must} the {role} {not}override the order of the {role2} for {drug}?",
    "How do I transfer {n} euros from the {account} to the {account2} {day}?",
    "{was} the fee for the {account} {more} than the fee for the {account2}?",
    "Does {name} owe money to {name2} {day}?",
    "{must} {name} see the record of {name2} {when} the {event}?",
    "Is {drug} {not}better than {drug2} for {who}?",
    "Should I take {drug} {with} food at {clock} {day}?",
    "What is the {most} daily dose of {drug} for {who}?",
    "How many hours {when} the {event} can I {not}drive {with} {drug}?",
    "Which branch in {city} is {not}open at {clock} {day}?",
    "{was} a balance {over} {n} euros charged on the {account}?",
    "What happens to {whose} card if I do {not}pay {n} euros {day}?",
    "{was} the payment of {n} euros from {name} to {name2} cancelled?",
    "Does {drug} stop the effect of {drug2} in {who}?",
    "Is the ward in {city} {not}closed to the visitors of {name} {day}?",
    "What is {whose} limit for transfers {over} {n} euros {when} {clock}?",
    "Do I have to take {drug} {times} a day {when} the {event}?",
)
TRAPS: tuple[tuple[str, str], ...] = (
    ("Is the hepatitis a vaccine free for my son?", "Is the hepatitis vaccine free for my son?"),
    ("Is the hepatitis a vaccine free for my son?", "Is the hepatitis b vaccine free for my son?"),
    ("No, insulin is safe for the patient?", "No insulin is safe for the patient?"),
    ("Who is the contact for my ward?", "WHO is the contact for my ward?"),
    ("Can I transfer the money to the US?", "Can I transfer the money to us?"),
    ("How do I get the results from IT?", "How do I get the results from it?"),
    ("Is it safe to take 1,5 mg of the drug?", "Is it safe to take 15 mg of the drug?"),
    ("Is it safe to take 5 mg of the drug?", "Is it safe to take 5 Mg of the drug?"),
    ("Is a BP < 90 low for the patient?", "Is a BP > 90 low for the patient?"),
    ("Is -5 okay for the base excess of my son?", "Is 5 okay for the base excess of my son?"),
    ("Is 5 mg/kg right for the child?", "Is 5 mg kg right for the child?"),
    ("Can I take just one tablet with the milk?", "Can I take one tablet with the milk?"),
    ("Can only doctors see the record?", "Can doctors see only the record?"),
    ("Can the patient leave the ward?", "Can the patients leave the ward?"),
    ("Is that dose right for my mother?", "Is this dose right for my mother?"),
    ("It is safe to take the drug before the scan.", "Is it safe to take the drug before the scan?"),
    ("Is the transfer from A to B free of the fee?", "Is the transfer from B to A free of the fee?"),
    ("The patient can leave the ward today.", "The patient can leave the ward today?"),
    ("Is the patient allergic to the drug?", "Is the patient non-allergic to the drug?"),
    ("What is the treatment of hypoglycemia?", "What is the treatment of hyperglycemia?"),
    ("Is it cheaper to pay before the deadline?", "Is it cheapest to pay before the deadline?"),
    ("Can I take the pill now or after the meal?", "Can I take the pill now and after the meal?"),
    ("Has the bank ever charged my account?", "Has the bank never charged my account?"),
    ("Why was my card blocked by the bank?", "Why was my card unblocked by the bank?"),
    ("Is at least one nurse on the ward?", "Is at most one nurse on the ward?"),
    ("Is the CO2 too high for my mother?", "Is the CO too high for my mother?"),
    ("Can I stop if the fever is not over 38?", "Can I not stop if the fever is over 38?"),
    ("Before the scan, can I eat after the pill?", "After the scan, can I eat before the pill?"),
    ("Do I owe the bank or does the bank owe me?", "Does the bank owe me or do I owe the bank twice?"),
    ("What is the dose for stage 1 of the disease?", "What is the dose for stage I of the disease?"),
    ("Is the 1st dose free for my mother?", "Is the 1 dose free for my mother?"),
    ("Can I eat with a little salt before the scan?", "Can I eat with little salt before the scan?"),
    ("Is the pill free for my daughter?", "Is a pill free for my daughter?"),
    ("Is a negative donor rare in the clinic?", "Is negative donor rare in the clinic?"),
    ("Is the nurse in the charge of the doctor?", "Is the nurse in charge of the doctor?"),
    ("Is no one allowed to see the account?", "Is no 1 allowed to see the account?"),
    ("Can I skip the dose before the scan?", "Can I skip the doses before the scan?"),
    (
        "Before the scan, should I say that I stopped the pill?",
        "Should I say that I stopped the pill before the scan?",
    ),
    ("Should I wait 5 days before the scan?", "Should I wait 5 weeks before the scan?"),
)  # fmt: skip
_FILLS = 4


def different(seed: int = 0) -> list[Pair]:
    """Pairs that must never hit: one slot changed or two swapped, and the traps."""
    found: list[Pair] = [("trap", one, other) for one, other in TRAPS]
    for template, fill, rng in _fills(seed):
        for slot, value in fill.items():
            others = [
                other for other in SLOTS[slot.rstrip("2")] if other not in (value, fill.get(_twin(slot)))
            ]
            changed = {**fill, slot: rng.choice(others)}
            found.append((slot.rstrip("2"), _write(template, fill), _write(template, changed)))
            if _twin(slot) in fill and not slot.endswith("2"):
                swapped = {**fill, slot: fill[_twin(slot)], _twin(slot): value}
                found.append(("swapped", _write(template, fill), _write(template, swapped)))
    return found


def same(seed: int = 0) -> list[Pair]:
    """Pairs that ask the same: by kind of rewriting, from politeness to other words for the same thing."""
    found: list[Pair] = []
    for template, fill, rng in _fills(seed):
        text = _write(template, fill)
        for kind, rewrite in REWRITES.items():
            other = rewrite(text, rng)
            if other != text:
                found.append((kind, text, other))
    return found


def _fills(seed: int) -> Iterator[tuple[str, dict[str, str], random.Random]]:
    for number, template in enumerate(TEMPLATES):
        rng = random.Random(f"{seed}/{number}")
        for _ in range(_FILLS):
            fill: dict[str, str] = {}
            for slot in re.findall(r"\{(\w+)\}", template):
                used = fill.get(_twin(slot))
                fill[slot] = rng.choice([value for value in SLOTS[slot.rstrip("2")] if value != used])
            yield template, fill, rng


def _twin(slot: str) -> str:
    return slot.rstrip("2") if slot.endswith("2") else f"{slot}2"


def _write(template: str, fill: dict[str, str]) -> str:
    return template.format(**fill)


def _polite(text: str, rng: random.Random) -> str:
    head = rng.choice(("Hello, ", "Please, ", "Good morning. ", "Hi! ", "I have a question: ", ""))
    tail = rng.choice((" Thank you!", " Thanks.", " Thanks in advance.", ""))
    return f"{head}{text}{tail}" if head or tail else f"{text} Thanks"


def _front(text: str, rng: random.Random) -> str:
    """The last phrase goes to the front, behind it a comma."""
    match = re.fullmatch(r"(.+) ((?:for|before|after|during|on|in) \w+(?: \w+){0,2})\?", text)
    if match is None:
        return text
    return f"{match[2][0].upper()}{match[2][1:]}, {match[1][0].lower()}{match[1][1:]}?"


def _words(pairs: dict[str, str]) -> Callable[[str, random.Random], str]:
    def rewrite(text: str, rng: random.Random) -> str:
        for word, other in pairs.items():
            text = re.sub(rf"(?<![\w.]){re.escape(word)}(?!\w)", other, text)
        return text

    return rewrite


REWRITES: dict[str, Callable[[str, random.Random], str]] = {
    "polite": _polite,
    "no question mark": lambda text, rng: text.rstrip("?"),
    "small first letter": lambda text, rng: text[0].lower() + text[1:],
    "no articles": lambda text, rng: re.sub(r"\bthe ", "", text),
    "short forms": _words({"What is": "What's", "do not": "don't"}),
    "unit joined": lambda text, rng: re.sub(r"(\d) (mg|mcg|ml|g)\b", r"\1\2", text),
    "number in words": _words({"5": "five"}),
    "abbreviated": _words({"hours": "hrs", "maximum": "max"}),
    "phrase in front": _front,
    "other words": _words(
        {"operation": "surgery", "take": "use", "euros": "EUR", "fee": "charge", "children": "kids",
         "record": "file", "cancelled": "called off", "effect": "action", "better": "superior"}
    ),
    "other build": lambda text, rng: f"I wonder about this: {text[0].lower()}{text[1:-1]}, or how is it?",
}  # fmt: skip
