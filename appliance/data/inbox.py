"""Demo records: the inbox of a clinic that does not exist.

Everything is made up here, from the phrases of inbox_phrases and inbox_talk; every record says so
(`facts["synthetic"]`). One seed gives the same records on every machine, and more patients leave the
earlier ones as they were.

Planted on purpose, for the steps that need them: patients with several messages each (the privacy
unit), age bands and sexes with somewhat different needs (bias), two years of dates in which some
queues grow and one topic appears late (drift), personal data with its places (`facts["planted"]`, a
JSON list of [start, end, kind]), and a few wrong labels (`facts["meant"]` holds the right one).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from random import Random

from appliance.data.columns import Columns
from appliance.data.inbox_phrases import QUEUES
from appliance.data.inbox_talk import (
    ASIDES,
    BRIDGES,
    CHAT,
    CHILD,
    CLOSINGS,
    DOCTORS,
    FIRST_NAMES,
    IDENTITY,
    OPENINGS,
    SIGNATURES,
    STREETS,
    SURNAMES,
    TOWNS,
    VAGUE,
)
from appliance.data.inbox_write import Hand, letter, pick, weighted, written
from appliance.data.records import Record

COLUMNS = Columns(
    task="label", text="message", answer="queue", unit="patient", date="date", facts=("sex", "age_band")
)
LABELS = tuple(sorted(QUEUES))
START, DAYS = date(2024, 1, 1), 730
LATE = {"weekly pen": date(2025, 6, 1)}
GROWING = {"account": 1.6, "vaccines": 0.8}  # added share of itself by the last day
WRONG_LABEL = 0.02
NO_REQUEST = 0.02  # messages that only somebody who knows the patient could sort
TWO_REQUESTS = 0.02  # the first one decides

WEIGHTS = {
    "appointment": 13, "medication": 12, "results": 10, "symptoms": 10, "payment": 9, "insurance": 9,
    "forms": 8, "account": 7, "vaccines": 6, "surgery": 6, "transport": 5, "device": 5,
}  # fmt: skip
BY_AGE = {
    "0-17": {"vaccines": 2.5, "forms": 2.0, "symptoms": 1.5, "transport": 0.4, "surgery": 0.5, "device": 0.5},
    "18-39": {"account": 1.6, "forms": 1.4, "insurance": 1.3, "transport": 0.5, "device": 0.6},
    "40-64": {"payment": 1.3, "results": 1.2, "insurance": 1.2},
    "65+": {"transport": 2.2, "device": 1.7, "medication": 1.4, "surgery": 1.3, "account": 0.7, "forms": 0.5},
}
AGES = ("0-17", 0.14), ("18-39", 0.27), ("40-64", 0.32), ("65+", 0.27)
BIRTH_YEARS = {"0-17": (2008, 2023), "18-39": (1986, 2006), "40-64": (1961, 1985), "65+": (1933, 1959)}
MESSAGES = (1, 0.14), (2, 0.20), (3, 0.21), (4, 0.16), (5, 0.12), (6, 0.08), (7, 0.05), (8, 0.04)
NEIGHBOURS = {
    "appointment": "results", "medication": "symptoms", "payment": "insurance", "insurance": "payment",
    "results": "symptoms", "symptoms": "appointment", "forms": "vaccines", "vaccines": "forms",
    "account": "results", "transport": "appointment", "device": "medication", "surgery": "symptoms",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Who writes, what about, and how much besides the request."""

    id: str
    sex: str
    age_band: str
    hand: Hand
    chatty: float
    weights: tuple[tuple[str, float], ...]


def generate(seed: int, patients: int = 2000) -> Iterator[Record]:
    """The messages of `patients` patients, patient by patient, each patient's in order of date."""
    for number in range(patients):
        rng = Random(f"cloister inbox/{seed}/{number}")  # noqa: S311 - demo text, not noise or keys
        patient = _patient(rng, number)
        days = sorted(int(rng.random() * DAYS) for _ in range(weighted(rng, MESSAGES)))
        for turn, day in enumerate(days):
            yield _message(rng, patient, START + timedelta(days=day), f"{patient.id}-{turn + 1}")


def _patient(rng: Random, number: int) -> Patient:
    sex = "female" if rng.random() < 0.54 else "male"
    band = weighted(rng, AGES)
    low, high = BIRTH_YEARS[band]
    born = date(low, 1, 1) + timedelta(days=int(rng.random() * 365 * (high - low + 1)))
    first, last = pick(rng, FIRST_NAMES[sex[0]]), pick(rng, SURNAMES)
    host = pick(rng, ("mailbox", "postbox", "inbox"))
    digits = "".join(str(int(rng.random() * 10)) for _ in range(11))
    factors = {label: BY_AGE[band].get(label, 1.0) for label in LABELS}
    for _ in range(2):
        factors[pick(rng, LABELS)] *= 2
    hand = Hand(
        personal={
            "first": first,
            "name": f"{first} {last}",
            "phone": pick(rng, (f"555-{digits[:3]}-{digits[3:7]}", f"(555) {digits[:3]} {digits[3:7]}")),
            "mrn": f"{pick(rng, ('', '', 'C-'))}{digits[4:]}",
            "email": f"{first}.{last}{digits[:2]}@{host}.example".lower(),
            "address": f"{1 + int(digits[:3])} {pick(rng, STREETS)}, {pick(rng, TOWNS)}",
            "dob": written(rng, born, year=True),
            "surname": pick(rng, DOCTORS),
        },
        slips=pick(rng, (0.0, 0.0, 0.01, 0.02, 0.04)),
        short=pick(rng, (0.0, 0.0, 0.2, 0.7)),
        small=rng.random() < 0.3,
    )
    return Patient(
        id=f"P{number:05d}",
        sex=sex,
        age_band=band,
        hand=hand,
        chatty=pick(rng, (0.3, 0.7, 1.0, 1.6)),
        weights=tuple((label, WEIGHTS[label] * factors[label]) for label in LABELS),
    )


def _message(rng: Random, patient: Patient, day: date, name: str) -> Record:
    age = (day - START).days / DAYS
    label = weighted(rng, tuple((one, w * (1 + age * GROWING.get(one, 0))) for one, w in patient.weights))
    topic, plan = _plan(rng, patient, label, day)
    text, planted = "", []
    for words, kind in letter(rng, patient.hand, plan, day):
        if kind:
            planted.append([len(text), len(text) + len(words), kind])
        text += words
    facts = {
        "date": day.isoformat(),
        "sex": patient.sex,
        "age_band": patient.age_band,
        "topic": topic,
        "planted": json.dumps(planted, separators=(",", ":")),
        "synthetic": "yes",
    }
    answer = label
    if rng.random() < WRONG_LABEL:
        answer = pick(rng, tuple(one for one in (NEIGHBOURS[label], pick(rng, LABELS)) if one != label))
        facts["meant"] = label
    return Record(id=name, text=text, answer=answer, unit=patient.id, source="synthetic", facts=facts)


def _plan(rng: Random, patient: Patient, label: str, day: date) -> tuple[str, list[str]]:
    """The topic of a message and its sentences, not yet filled in; the request mostly comes last."""
    chat = patient.chatty
    topic, request = weighted(rng, _phrases(label, _ahead(day)))
    before, after = [], []
    kind = rng.random()
    if kind < NO_REQUEST:
        topic, request = "vague", pick(rng, VAGUE)
    elif kind < NO_REQUEST + TWO_REQUESTS:
        _, second = weighted(rng, _phrases(pick(rng, LABELS), _ahead(day)))
        after = [f"{pick(rng, BRIDGES)} {second}"]
    if rng.random() < 0.20 * chat:
        before.append(pick(rng, OPENINGS))
    if rng.random() < 0.07:
        before.append(pick(rng, IDENTITY))
    if patient.age_band == "0-17" and rng.random() < 0.25:
        before.append(pick(rng, CHILD))
    if rng.random() < 0.04 * chat:
        before.append(pick(rng, CHAT))
    if rng.random() < 0.05:
        before.append(pick(rng, ASIDES[pick(rng, LABELS)]))
    if rng.random() < 0.04 * chat:
        after.append(pick(rng, CLOSINGS))
    if rng.random() < 0.03:
        after.append(pick(rng, SIGNATURES))
    return topic, [*before, request, *after]


def _ahead(day: date) -> tuple[str, ...]:
    """The topics nobody talks of yet."""
    return tuple(topic for topic, since in LATE.items() if day < since)


@cache
def _phrases(label: str, without: tuple[str, ...]) -> tuple[tuple[tuple[str, str], float], ...]:
    """(topic, phrase) and weight, for one queue: a few are common, most are rare, a late one is in vogue."""
    phrases = [(topic, one) for topic, some in QUEUES[label].items() for one in some]
    return tuple(
        ((topic, phrase), (3.0 if topic in LATE else 1.0) / (1 + 1.5 * rank))
        for rank, (topic, phrase) in enumerate(phrases)
        if topic not in without
    )
