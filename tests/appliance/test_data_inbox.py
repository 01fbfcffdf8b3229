from __future__ import annotations

import json
import re
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pytest

import appliance.models
from appliance.data import inbox
from appliance.data.inbox_phrases import QUEUES
from appliance.data.inbox_talk import ASIDES, SLOTS
from appliance.data.inbox_write import KINDS
from appliance.data.records import Record
from appliance.data.split import split

TOKENIZER = Path(appliance.models.__file__).parent / "base" / "tokenizer.json"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(inbox.generate(0))


@pytest.fixture(scope="module")
def tokens():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def test_two_thousand_patients_with_one_to_eight_messages_over_twelve_queues(records):
    per_patient = Counter(record.unit for record in records)
    assert len(per_patient) == 2000
    assert set(per_patient.values()) == set(range(1, 9))
    assert 6500 < len(records) < 7500
    counts = Counter(record.answer for record in records)
    assert tuple(sorted(counts)) == inbox.LABELS
    assert len(counts) == 12
    assert min(counts.values()) > 250
    assert len({record.id for record in records}) == len(records)


def test_deterministic_and_more_patients_leave_the_first_as_they_were():
    few = list(inbox.generate(3, 40))
    assert few == list(inbox.generate(3, 60))[: len(few)]
    assert few != list(inbox.generate(4, 40))[: len(few)]


def test_the_first_messages_are_what_they_were():
    first = next(inbox.generate(0, 1))
    assert (first.id, first.answer, first.facts["date"], first.text) == FIRST


FIRST = (
    "P00000-1",
    "insurance",
    "2024-02-10",
    "Is seeing doctor Tanaka covered by my insurance or not.",
)


def test_each_label_is_one_token_of_the_shipped_base(tokens):
    ids = [tokens(" " + label) for label in inbox.LABELS]
    assert all(len(one) == 1 for one in ids)
    assert len({one[0] for one in ids}) == len(inbox.LABELS)


def test_texts_are_short(records, tokens):
    lengths = sorted(len(tokens(record.text)) for record in records)
    assert lengths[len(lengths) * 9 // 10] <= 45
    assert lengths[-1] < 100
    words = sorted(len(record.text.split()) for record in records)
    assert words[len(words) // 100] >= 5
    assert words[len(words) * 99 // 100] <= 45


def test_every_phrase_is_whole():
    phrases = [p for families in QUEUES.values() for some in families.values() for p in some]
    phrases += [p for some in (*ASIDES.values(), *SLOTS.values()) for p in some]
    slots = set(SLOTS) | set(KINDS) | {"ahead", "back"}
    for phrase in phrases:
        assert phrase.count("[") == phrase.count("]"), phrase
        assert set(re.findall(r"<(\w+)>", phrase)) <= slots, phrase
    assert set(QUEUES) == set(ASIDES) == set(inbox.WEIGHTS)
    assert set(inbox.LATE) <= {topic for families in QUEUES.values() for topic in families}


def test_no_mark_and_no_double_space_is_left_in_a_message(records):
    for record in records:
        assert not re.search(r"[\[\]<>|]|  | [.?,]|\n\n", record.text), record.text


def test_planted_personal_data_stands_where_the_facts_say(records):
    patterns = {
        "PHONE": r"\(?555[-)][-\d ]+",
        "EMAIL": r"[a-z.]+\d\d@[a-z]+\.example",
        "MRN": r"(?i)(c-)?\d{7}",
        "DOB": r"(\d+/\d+/\d{4}|\d+ \w+ \d{4}|\d{4}-\d\d-\d\d)",
        "ADDRESS": r"\d+ [\w ]+, \w+",
        "DATE": r"(\d+/\d+|\w+ \d+|\d+ \w+)",
        "NAME": r"[A-Za-z]+( [A-Za-z]+)?",
    }
    seen: Counter[str] = Counter()
    for record in records:
        for start, end, kind in json.loads(record.facts["planted"]):
            assert re.fullmatch(patterns[kind], record.text[start:end])
            seen[kind] += 1
        if "@" in record.text or "555-" in record.text:
            assert {"EMAIL", "PHONE"} & {span[2] for span in json.loads(record.facts["planted"])}
    assert set(seen) == set(patterns)
    assert min(seen.values()) > 50


def test_every_record_says_synthetic_and_when_and_who(records):
    for record in records:
        assert record.facts["synthetic"] == "yes"
        assert inbox.START <= date.fromisoformat(record.facts["date"]) < date(2026, 1, 1)
        assert record.facts["sex"] in ("female", "male")
        assert record.facts["age_band"] in dict(inbox.AGES)
    who = {record.unit: (record.facts["sex"], record.facts["age_band"]) for record in records}
    assert all(who[r.unit] == (r.facts["sex"], r.facts["age_band"]) for r in records)


def test_two_years_drift(records):
    for topic, since in inbox.LATE.items():
        days = [record.facts["date"] for record in records if record.facts["topic"] == topic]
        assert len(days) > 20
        assert min(days) >= since.isoformat()
    halves = [Counter(), Counter()]
    for record in records:
        halves[record.facts["date"] >= "2025-01-01"][record.answer] += 1
    shares = [{label: half[label] / half.total() for label in half} for half in halves]
    assert shares[1]["account"] > 1.2 * shares[0]["account"]


def test_a_few_labels_are_wrong_and_the_facts_hold_the_right_one(records):
    wrong = [record for record in records if "meant" in record.facts]
    assert all(record.facts["meant"] != record.answer for record in wrong)
    assert abs(len(wrong) / len(records) - inbox.WRONG_LABEL) < 0.01


def test_words_sort_most_messages_and_no_single_word_does(records):
    """TF-IDF with logistic regression, against the best single word of each queue."""
    sklearn_text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    parts = split(records, 0)
    train, held_out = parts["train"][:1500], parts["val"] + parts["test"]
    truth = np.array([record.answer for record in held_out])
    vectors = sklearn_text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    seen = vectors.fit_transform([record.text for record in train])
    model = linear.LogisticRegression(C=10, max_iter=300).fit(seen, [record.answer for record in train])
    words_right = (model.predict(vectors.transform([r.text for r in held_out])) == truth).mean()
    assert 0.85 < words_right < 0.95, words_right
    assert one_word_rules(train, held_out, truth) < 0.55


def one_word_rules(train: list[Record], held_out: list[Record], truth: np.ndarray) -> float:
    """Accuracy of: the queue of the surest of twelve words (best F1 each) in the text, else the largest."""
    bags = [set(re.findall(r"\w+", record.text.lower())) for record in train]
    queues = Counter(record.answer for record in train)
    words: Counter[str] = Counter(word for bag in bags for word in bag)
    both: Counter[tuple[str, str]] = Counter(
        (word, record.answer) for bag, record in zip(bags, train, strict=True) for word in bag
    )
    rules = []
    for queue, size in queues.items():
        best = max(words, key=lambda word: 2 * both[word, queue] / (words[word] + size))
        rules.append((both[best, queue] / words[best], best, queue))
    rules.sort(reverse=True)
    fallback = queues.most_common(1)[0][0]
    guesses = []
    for record in held_out:
        bag = set(re.findall(r"\w+", record.text.lower()))
        guesses.append(next((queue for _, word, queue in rules if word in bag), fallback))
    return float((np.array(guesses) == truth).mean())
