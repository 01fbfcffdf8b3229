"""The texts as documents of the chat form, with a weight for every stretch.

A document is a list of stretches (text, weight of its tokens in the loss). Forms:

    Message: <text>⏎Label?                        one intent, section or one-word name of it
    Options: a, b, c⏎Message: <text>⏎Label?       one of the listed, or `other`
    Message: <text>⏎Topic?                        the family of the intent
    Question: <text>                              an answer
    Context: <text>⏎Question: <text>              its first sentence
    Dialogue:⏎<turns>⏎Note?                       a note
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from base_model import sources
from base_model.noise import noisy
from base_model.sources import Medical, Message, Note

Document = list[tuple[str, float]]
LABEL, TEXT, SHOWN, NOTE = 4.0, 1.0, 0.0, 1.5
EXCERPT_WORDS = 32
SPOKEN = {
    "add to playlist": "playlist",
    "audio volume down": "quieter",
    "audio volume up": "louder",
    "book restaurant": "dining",
    "datetime query": "time",
    "email addcontact": "contact",
    "email querycontact": "contact",
    "email sendemail": "send",
    "general commandstop": "stop",
    "general dontcare": "whatever",
    "get weather": "weather",
    "how old are you": "age",
    "iot hue lightchange": "lights",
    "iot hue lightdim": "lights",
    "iot hue lightoff": "lights",
    "iot hue lighton": "lights",
    "iot hue lightup": "lights",
    "iot wemo off": "plug",
    "iot wemo on": "plug",
    "lists createoradd": "lists",
    "new card": "card",
    "oil change when": "oil",
    "rate book": "rating",
    "search screening event": "screening",
    "tell joke": "joke",
    "what can i ask you": "help",
    "what is your name": "name",
    "where are you from": "origin",
    "who do you work for": "employer",
    "who made you": "maker",
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents to train on, documents held out, and the held-out rows for probes."""

    train: list[Document]
    held: list[Document]
    held_messages: list[Message]
    held_medical: list[Medical]


def prompt(*stretches: tuple[str, float]) -> Document:
    """One user turn, as the chat template writes it."""
    return [("<s><|user|> ", SHOWN), *stretches, ("</s><|assistant|>", SHOWN)]


def labelled(
    text: str, answer: str, *, ask: str = "Label?", weight: float = TEXT, options: str = ""
) -> Document:
    """A message with its one answer; `options` is the line of listed answers."""
    shown = f"Options: {options}\nMessage: " if options else "Message: "
    question = prompt((shown, SHOWN), (text, weight), (f"\n{ask}", SHOWN))
    return [*question, (f" {answer}</s>", LABEL)]


def short_names(labels: Iterable[str]) -> dict[str, str]:
    """One word for each label: as in SPOKEN, else the one that the fewest labels use, the last of several."""
    names = sorted(set(labels))
    uses = Counter(word for name in names for word in set(name.split()))
    return {
        name: SPOKEN.get(name) or min(reversed(name.split()), key=lambda word: uses[word]) for name in names
    }


def options_document(
    row: Message,
    topics: dict[str, list[str]],
    short: dict[str, str],
    asides: Sequence[str],
    dice: random.Random,
) -> Document:
    """The row, noisy half of the time, behind 3 to 14 listed names.

    Of the lists 60 % are one-word names, half are of one topic, 15 % hold `other`. Where `other` is
    listed, one time in four the true name is not, and the answer is `other`.
    """
    near = [name for name in topics[row.topic] if name != row.label]
    far = [name for name in short if name != row.label]
    count = dice.randint(2, 13)
    pool = near if dice.random() < 0.5 and len(near) >= 2 else far
    others = dice.sample(pool, min(count, len(pool)))
    one_word = dice.random() < 0.6
    spoken = [short[name] if one_word else name for name in others]
    answer = short[row.label] if one_word else row.label
    listed = sorted({name for name in spoken if name != answer})
    if dice.random() < 0.15:
        listed.append("other")
        answer = "other" if dice.random() < 0.25 else answer
    if answer not in listed:
        listed.append(answer)
    dice.shuffle(listed)
    noise = dice.random() < 0.5
    text = noisy(row.text, asides, dice) if noise else row.text
    return labelled(text, answer, weight=SHOWN if noise else 0.5, options=", ".join(listed))


def message_documents(rows: Sequence[Message], asides: Sequence[str], dice: random.Random) -> list[Document]:
    """Every form of every message; `asides` are short sentences to put noise around it."""
    short = short_names(row.label for row in rows)
    topics: dict[str, list[str]] = defaultdict(list)
    for label, topic in sorted({(row.label, row.topic) for row in rows}):
        topics[topic].append(label)
    documents = []
    for row in rows:
        documents.append(labelled(row.text, row.label))
        documents.append(options_document(row, topics, short, asides, dice))
        if dice.random() < 0.3:
            documents.append(labelled(noisy(row.text, asides, dice), row.label, weight=SHOWN))
        if dice.random() < 0.3:
            documents.append(labelled(row.text, row.topic, ask="Topic?", weight=0.5))
    return documents


def masked(text: str, focus: str) -> str:
    """The text with the disease's name, with and without its bracketed part, as `this condition`."""
    for name in sorted({focus, re.sub(r"\s*\(.*?\)", "", focus)}, key=len, reverse=True):
        if name.strip():
            text = re.sub(re.escape(name.strip()), "this condition", text, flags=re.IGNORECASE)
    return text


def excerpt(row: Medical, dice: random.Random) -> str:
    """Thirty-two words of the answer, the disease's name masked; the first ones half of the time."""
    words = masked(row.answer, row.focus).split()
    start = 0 if dice.random() < 0.5 else dice.randint(0, max(0, len(words) - EXCERPT_WORDS))
    return " ".join(words[start : start + EXCERPT_WORDS])


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, cut behind a sentence or else a word."""
    if len(text) <= limit:
        return text
    head = text[:limit]
    stop = head.rfind(". ") + 1
    return head[:stop] if stop > limit // 3 else head[: head.rfind(" ")]


def medical_documents(rows: Sequence[Medical], dice: random.Random) -> list[Document]:
    """Excerpts and questions with their section, questions with answers, contexts with first sentences."""
    names = sorted(set(sources.SECTIONS.values()))
    documents = []
    for row in rows:
        text = excerpt(row, dice)
        documents.append(labelled(text, row.section))
        if dice.random() < 0.4:
            others = [name for name in dice.sample(names, dice.randint(3, 9)) if name != row.section]
            listed = [*others, row.section]
            dice.shuffle(listed)
            documents.append(labelled(excerpt(row, dice), row.section, options=", ".join(listed)))
        if dice.random() < 0.3:
            documents.append(labelled(row.question, row.section))
        documents.append(_answer(row, dice))
    return documents


def _answer(row: Medical, dice: random.Random) -> Document:
    draw = dice.random()
    asked = prompt(("Question: ", SHOWN), (row.question, TEXT))
    if draw < 0.2:
        return [*asked, (f" {cut(row.answer, 1100)}</s>", TEXT)]
    if draw < 0.6:
        return [*asked, (f" {cut(row.answer, 460)}</s>", TEXT)]
    context = cut(row.answer, 460)
    first = context.split(". ")[0].rstrip(".") + "."
    question = prompt(("Context: ", SHOWN), (context, SHOWN), ("\nQuestion: ", SHOWN), (row.question, SHOWN))
    return [*question, (f" {first}</s>", NOTE)]


def patient_lines(row: Note) -> list[str]:
    """What the patient says, one line per turn."""
    turns = [line.partition(":") for line in row.dialogue.splitlines()]
    return [said.strip() for who, _, said in turns if who.startswith("Patient") and said.strip()]


def note_documents(rows: Sequence[Note]) -> list[Document]:
    """Dialogues with notes, notes with sections, what the patient says with sections."""
    documents = []
    for row in rows:
        turns = prompt(("Dialogue:\n", SHOWN), (cut(row.dialogue, 900), TEXT), ("\nNote?", SHOWN))
        documents.append([*turns, (f" {cut(row.note, 600)}</s>", NOTE)])
        documents.append(labelled(cut(row.note, 300), row.section))
        said = patient_lines(row)
        if said:
            documents.append(labelled(cut(" ".join(said), 300), row.section))
    return documents


def build(data: Path, *, seed: int) -> Corpus:
    """The whole corpus in a fixed random order."""
    dice = random.Random(seed)
    rows, cases, notes = sources.messages(data), sources.medical(data), sources.notes(data)

    def documents(held: bool) -> list[Document]:
        said = [line for row in notes if row.held == held for line in patient_lines(row)]
        asides = [line for line in said if 15 <= len(line) <= 80]
        found = message_documents([row for row in rows if row.held == held], asides, dice)
        found += medical_documents([row for row in cases if row.held == held], dice)
        return found + note_documents([row for row in notes if row.held == held])

    train, held = documents(False), documents(True)
    for piece in sources.passages(data):
        (held if sources.held_out(piece) else train).append([("<s>", SHOWN), (piece, TEXT), ("</s>", TEXT)])
    dice.shuffle(train)
    dice.shuffle(held)
    return Corpus(
        train=train,
        held=held,
        held_messages=[row for row in rows if row.held],
        held_medical=[row for row in cases if row.held],
    )
