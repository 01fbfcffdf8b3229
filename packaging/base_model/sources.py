"""The texts of the recipe: which files are read, what stays out, which rows are held out.

Only the files named here are opened. Banking77 and everything share-alike are not among them, and
neither are sources whose licence stands in a README alone. A row is held out by a hash of its own
text (or its disease), so that no other form of it can be in the training part.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILES = (
    "clinc150/train.jsonl",
    "clinc150/val.jsonl",
    "hwu64/train.jsonl",
    "snips/train.jsonl",
    "medquad/train.jsonl",
    "medquad/val.jsonl",
    "mts_dialog/train.jsonl",
    "gutenberg8/The-Adventures-of-Sherlock-Holmes_1661.txt",
    "gutenberg8/Alice-s-Adventures-in-Wonderland_11.txt",
    "gutenberg8/The-Wonderful-Wizard-of-Oz_55.txt",
)
PRIVATE_SHARE = 0.4
HELD_SHARE = 0.05

SNIPS_TOPICS = {
    "GetWeather": "weather",
    "PlayMusic": "music",
    "AddToPlaylist": "music",
    "BookRestaurant": "dining",
    "RateBook": "books",
    "SearchScreeningEvent": "movies",
    "SearchCreativeWork": "media",
}
SECTIONS = {
    "information": "information",
    "symptoms": "symptoms",
    "treatment": "treatment",
    "inheritance": "inheritance",
    "frequency": "frequency",
    "genetic changes": "genetic",
    "causes": "causes",
    "exams and tests": "tests",
    "research": "research",
    "outlook": "outlook",
    "susceptibility": "risk",
    "considerations": "considerations",
    "prevention": "prevention",
    "stages": "stages",
    "complications": "complications",
}
NOTE_SECTIONS = {
    "FAM/SOCHX": "family",
    "GENHX": "history",
    "PASTMEDICALHX": "medical history",
    "CC": "complaint",
    "PASTSURGICAL": "surgery",
    "ALLERGY": "allergy",
    "ROS": "review",
    "MEDICATIONS": "medications",
    "ASSESSMENT": "assessment",
    "EXAM": "exam",
    "DIAGNOSIS": "diagnosis",
    "DISPOSITION": "disposition",
    "PLAN": "plan",
    "EDCOURSE": "emergency",
    "IMMUNIZATIONS": "vaccines",
    "IMAGING": "imaging",
    "GYNHX": "gynecology",
    "PROCEDURES": "procedures",
    "LABS": "labs",
}


@dataclass(frozen=True, kw_only=True)
class Message:
    """One short message and its intent; `topic` is the intent's family."""

    text: str
    label: str
    topic: str
    source: str
    held: bool


@dataclass(frozen=True, kw_only=True)
class Medical:
    """One question about a disease of the public side, with its answer."""

    focus: str
    section: str
    question: str
    answer: str
    held: bool


@dataclass(frozen=True, kw_only=True)
class Note:
    """One doctor-patient dialogue and the section of the note written from it."""

    section: str
    dialogue: str
    note: str
    held: bool


def share(salt: str, text: str) -> float:
    """A number in [0, 1) that depends on nothing but the two strings."""
    digest = hashlib.sha256(f"{salt}\0{' '.join(text.lower().split())}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def private_side(focus: str) -> bool:
    """Whether a MedQuAD disease is kept out of the corpus, for private tasks."""
    return share("cloister/base/private-side/1", focus) < PRIVATE_SHARE


def held_out(text: str) -> bool:
    """Whether a row is for validation and never for training."""
    return share("cloister/base/held-out/1", text) < HELD_SHARE


def plain(name: str) -> str:
    """A label as running text: `BookRestaurant` and `book_restaurant` are `book restaurant`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ")
    return " ".join(spaced.lower().split())


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def messages(data: Path) -> list[Message]:
    """CLINC150 (train and validation, in scope), HWU64 and Snips, each text once."""
    found: dict[str, Message] = {}
    for source, file, topic in (
        ("clinc150", "clinc150/train.jsonl", "domain"),
        ("clinc150", "clinc150/val.jsonl", "domain"),
        ("hwu64", "hwu64/train.jsonl", "scenario"),
        ("snips", "snips/train.jsonl", ""),
    ):
        for row in _rows(data / file):
            text = " ".join(row["text"].split())
            if row["label"] == "oos" or not text:
                continue
            family = row[topic] if topic else SNIPS_TOPICS[row["label"]]
            found.setdefault(
                f"{source} {text.lower()}",
                Message(
                    text=text,
                    label=plain(row["label"]),
                    topic=plain(family),
                    source=source,
                    held=held_out(text),
                ),
            )
    return list(found.values())


def medical(data: Path) -> list[Medical]:
    """MedQuAD's rows about diseases of the public side; held out by disease."""
    return [
        Medical(
            focus=row["focus"],
            section=SECTIONS[row["qtype"]],
            question=" ".join(row["question"].replace(" ?", "?").split()),
            answer=" ".join(row["answer"].split()),
            held=held_out(row["focus"]),
        )
        for file in ("medquad/train.jsonl", "medquad/val.jsonl")
        for row in _rows(data / file)
        if row["qtype"] in SECTIONS and row["answer"].strip() and not private_side(row["focus"])
    ]


def notes(data: Path) -> list[Note]:
    """MTS-Dialog's training rows."""
    return [
        Note(
            section=NOTE_SECTIONS[row["label"]],
            dialogue="\n".join(
                " ".join(line.split()) for line in row["dialogue"].splitlines() if line.strip()
            ),
            note=" ".join(row["note"].split()),
            held=held_out(row["dialogue"]),
        )
        for row in _rows(data / "mts_dialog/train.jsonl")
        if row["label"] in NOTE_SECTIONS
    ]


def passages(data: Path, words: int = 160) -> list[str]:
    """The three books in pieces of `words` words."""
    pieces = []
    for file in FILES:
        if file.endswith(".txt"):
            book = (data / file).read_text(encoding="utf-8").split()
            pieces += [" ".join(book[start : start + words]) for start in range(0, len(book), words)]
    return pieces


def fingerprint(data: Path) -> str:
    """SHA-256 over the files that are read, in hex."""
    digest = hashlib.sha256()
    for file in FILES:
        digest.update(f"{file}\0".encode())
        digest.update(hashlib.sha256((data / file).read_bytes()).digest())
    return digest.hexdigest()
