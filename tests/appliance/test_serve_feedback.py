"""Feedback: who may give it, what is kept where, what reaches a dataset."""

from __future__ import annotations

import json
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, DataRejected, NoRoom, NotFound
from appliance.core.home import Home
from appliance.data.columns import columns_from
from appliance.data.readers import read_records
from appliance.serve import feedback, review
from appliance.serve.feedback import Answers, give, sweep
from appliance.serve.requests import Refused

QUESTION, ANSWER, CORRECTION = "Is Ada Quux allergic?", "No, Ada is not.", "Yes, to penicillin."
UP: dict[str, Any] = {"answer_id": "a1", "thumb": 1}


@pytest.fixture
def answers() -> Answers:
    found = Answers()
    keep(found, "a1")
    return found


def keep(answers: Answers, answer_id: str, key: str = "key1", text: str = ANSWER, **rest: Any) -> None:
    messages = rest.pop("messages", [{"role": "user", "content": QUESTION}])
    answers.keep(answer_id, key, model=rest.pop("model", "m"), messages=messages, text=text, **rest)


def accepted(home: Home, answers: Answers, answer_id: str, **said: Any) -> str:
    found = give(home, answers, "key1", {"answer_id": answer_id, **said})
    review.set_state(home, [found], "accepted", "rev")
    return found


class Counted(OrderedDict[str, Any]):
    """Counts how often somebody looks at all there is."""

    looks = 0

    def items(self) -> Any:
        self.looks += 1
        return super().items()


def test_an_answer_is_kept_without_a_look_at_all_others() -> None:
    """With tens of thousands of short ones that would be milliseconds of the endpoint's loop each."""
    answers = Answers(most_bytes=8000)
    answers._kept = Counted()
    for number in range(200):
        keep(answers, f"a{number}", "busy")
        keep(answers, f"b{number}", f"key{number % 5}", text="No." * (number % 7))
    assert isinstance(answers._kept, Counted) and answers._kept.looks == 0
    held = {name: len(content) for name, (_, _, content) in answers._kept.items()}
    assert answers.size == sum(held.values()) <= 8000
    for key in ("busy", *(f"key{number}" for number in range(5))):
        own = [size for name, size in held.items() if answers._kept[name][1] == key]
        assert (
            0 < sum(own) <= 1000 and sum(own) == answers._sizes[key] and len(own) == len(answers._owned[key])
        )
    assert answers.find("a199", "busy") and not answers.find("a0", "busy")


# --- giving


def test_nothing_is_kept_on_disk_until_feedback_is_given(home: Home, answers: Answers) -> None:
    assert list(home.feedback.iterdir()) == []
    found = give(home, answers, "key1", UP | {"correction": f" {CORRECTION} ", "ratings": {"clear": 4}})
    (file,) = home.feedback.iterdir()
    assert file.name == f"{found}.json" and stat.S_IMODE(file.stat().st_mode) == 0o600
    said, words = review.read_feedback(home, found)
    assert (said.key, said.model, said.answer, said.thumb) == ("key1", "m", "a1", 1)
    assert (said.ratings, said.corrected, said.state) == ({"clear": 4}, True, "new")
    assert (words.text, words.correction, words.label) == (ANSWER, CORRECTION, False)
    assert words.messages == ({"role": "user", "content": QUESTION},)


def test_no_word_of_it_is_in_the_database_or_the_audit_log(home: Home, answers: Answers) -> None:
    found = give(home, answers, "key1", UP | {"correction": CORRECTION})
    with reading(home) as link:
        link.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        entry = json.loads(link.execute("SELECT entry FROM audit ORDER BY seq DESC").fetchone()["entry"])
    assert (entry["what"], entry["who"], entry["target"]) == ("feedback.give", "key key1", found)
    for file in home.path.glob("cloister.db*"):
        assert not any(word in file.read_bytes() for word in (b"Quux", b"penicillin", b"Ada"))


@pytest.mark.parametrize("key", ["key2", ""])
def test_only_the_key_that_asked_may_speak(home: Home, answers: Answers, key: str) -> None:
    with pytest.raises(Refused) as other:
        give(home, answers, key, UP)
    with pytest.raises(Refused) as unknown:
        give(home, answers, key, UP | {"answer_id": "nowhere"})
    assert other.value.status == 404 and other.value.body() == unknown.value.body()
    assert list(home.feedback.iterdir()) == [] and review.list_feedback(home) == []


@pytest.mark.parametrize(("cap", "most"), [("WAITING_CAP", 3), ("WAITING_BYTES", 3 * 1100)])
def test_no_key_fills_the_disk(
    home: Home, answers: Answers, monkeypatch: pytest.MonkeyPatch, cap: str, most: int
) -> None:
    monkeypatch.setattr(feedback, cap, most)
    for number in range(2, 5):
        keep(answers, f"a{number}")
    keep(answers, "b1", key="key2")
    long = {"correction": "x" * 900}
    given = [give(home, answers, "key1", UP | {"answer_id": f"a{number}"} | long) for number in (1, 2, 3)]
    with pytest.raises(Refused, match="waits for review") as refused:
        give(home, answers, "key1", UP | {"answer_id": "a4"} | long)
    assert (refused.value.status, refused.value.code) == (429, "feedback_full")
    assert len(list(home.feedback.iterdir())) == len(review.list_feedback(home)) == 3
    assert give(home, answers, "key2", UP | {"answer_id": "b1"} | long)  # others have room of their own
    again = give(home, answers, "key1", {"answer_id": "a1", "thumb": -1} | long)  # in place of the first
    assert again not in given and len(review.list_feedback(home)) == 4
    review.set_state(home, [again], "rejected", "rev")
    assert give(home, answers, "key1", UP | {"answer_id": "a4"} | long)


def test_nor_may_another_key_take_the_place_of_what_was_said(home: Home, answers: Answers) -> None:
    give(home, answers, "key1", UP)
    with pytest.raises(Refused):
        give(home, Answers(), "key2", UP | {"thumb": -1})
    (said,) = review.list_feedback(home)
    assert (said.key, said.thumb) == ("key1", 1)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"answer_id": "a1"},
        {"thumb": 1},
        {"answer_id": 7, "thumb": 1},
        UP | {"thumb": 2},
        UP | {"thumb": True},
        UP | {"thumb": "1"},
        UP | {"correction": 3},
        UP | {"correction": "x" * (feedback.CORRECTION_CAP + 1)},
        UP | {"correction": "\ud800"},
        {"answer_id": "a1", "correction": "  "},
        UP | {"ratings": {"correct": 0}},
        UP | {"ratings": {"correct": 6}},
        UP | {"ratings": {"correct": True}},
        UP | {"ratings": {"kind": 3}},
        UP | {"ratings": [5]},
        UP | {"comment": "x"},
    ],
)
def test_bad_feedback_is_refused_and_leaves_nothing(home: Home, answers: Answers, body: Any) -> None:
    with pytest.raises(Refused) as refused:
        give(home, answers, "key1", body)
    assert refused.value.status == 400
    assert list(home.feedback.iterdir()) == [] and review.list_feedback(home) == []


def test_said_anew_it_takes_the_place_and_must_be_reviewed_anew(home: Home, answers: Answers) -> None:
    """Else whoever holds a key could change what was accepted after a reviewer has read it."""
    first = accepted(home, answers, "a1", thumb=1)
    second = give(home, Answers(), "key1", {"answer_id": "a1", "correction": CORRECTION})  # memory is gone
    (said,) = review.list_feedback(home)
    assert (said.id, said.state, said.thumb) == (second, "new", None) and second != first
    assert review.read_feedback(home, second)[1].text == ANSWER
    assert [file.name for file in home.feedback.iterdir()] == [f"{second}.json"]
    with pytest.raises(NotFound):
        review.set_state(home, [first], "accepted", "rev")


def test_the_very_same_said_again_changes_nothing_and_is_no_line_of_the_audit_log(
    home: Home, answers: Answers
) -> None:
    said = UP | {"correction": CORRECTION, "ratings": {"clear": 4, "correct": 2}}

    def lines() -> int:
        with reading(home) as link:
            return int(link.execute("SELECT COUNT(*) FROM audit").fetchone()[0])

    first = accepted(home, answers, **said)
    before = lines()
    for memory in (answers, Answers()):
        assert [give(home, memory, "key1", said) for _ in range(3)] == [first] * 3
    (kept,) = review.list_feedback(home)
    assert (kept.id, kept.state, lines()) == (first, "accepted", before)
    for other in ({"thumb": -1}, {"correction": "No."}, {"ratings": {"clear": 5}}):
        assert give(home, answers, "key1", said | other) != first
    assert lines() == before + 3


@pytest.mark.parametrize("label", [True, False])
def test_a_correction_of_a_label_is_a_label(home: Home, label: bool) -> None:
    answers, asked = Answers(), []

    def labels(model: str) -> list[str]:
        asked.append(model)
        return [" billing", "refill"]

    keep(answers, "a1", text="billing", label=label)
    said = {"answer_id": "a1", "correction": "nosuchlabel"}
    if label:
        with pytest.raises(Refused, match="labels: billing, refill") as refused:
            give(home, answers, "key1", said, labels)
        assert refused.value.param == "correction" and list(home.feedback.iterdir()) == []
        assert asked == ["m"]
        give(home, answers, "key1", said | {"correction": "billing "}, labels)
        give(home, answers, "key1", {"answer_id": "a1", "thumb": 1}, labels)
    give(home, answers, "key1", said, labels if not label else lambda model: ())  # unknown by now


def test_a_failure_leaves_no_file_and_keeps_what_was_said_before(
    home: Home, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = give(home, answers, "key1", UP)

    def full(*args: Any, **rest: Any) -> None:
        raise NoRoom("full")

    monkeypatch.setattr(feedback.audit, "record", full)
    with pytest.raises(NoRoom):
        give(home, answers, "key1", UP | {"thumb": -1})
    assert [file.name for file in home.feedback.iterdir()] == [f"{first}.json"]
    assert review.read_feedback(home, first)[0].thumb == 1


def test_the_sweep_takes_what_no_row_names(home: Home, answers: Answers) -> None:
    kept = give(home, answers, "key1", UP)
    (home.feedback / "deadbeef00.json").write_text(QUESTION)
    (home.feedback / ".deadbeef00.json.1.tmp").write_text(QUESTION)
    assert sweep(home) == 2
    assert [file.name for file in home.feedback.iterdir()] == [f"{kept}.json"]


# --- the memory of answers


def test_the_memory_is_bounded_by_bytes_and_age() -> None:
    clock = [0.0]
    answers = Answers(most_bytes=2000, most_seconds=60, clock=lambda: clock[0])
    for number in range(50):
        keep(answers, f"a{number}", text="x" * 300)
        assert answers.size <= 2000
    assert answers.find("a0", "key1") is None and answers.find("a49", "key1") is not None
    keep(answers, "huge", text="x" * 3000)
    assert answers.find("huge", "key1") is None and answers.find("a49", "key1") is not None
    clock[0] = 59.0
    assert answers.find("a49", "key1") is not None
    clock[0] = 61.0
    assert answers.find("a49", "key1") is None and answers.size == 0


def test_an_answer_kept_twice_counts_once() -> None:
    answers = Answers()
    keep(answers, "a1")
    size = answers.size
    keep(answers, "a1")
    assert answers.size == size


# --- review


def test_review_is_audited_and_all_or_nothing(home: Home, answers: Answers) -> None:
    found = give(home, answers, "key1", UP)
    with pytest.raises(NotFound):
        review.set_state(home, [found, "nowhere"], "accepted", "rev")
    assert review.list_feedback(home, "new") and not review.list_feedback(home, "accepted")
    review.set_state(home, [found], "rejected", "rev")
    with reading(home) as link:
        entry = json.loads(link.execute("SELECT entry FROM audit ORDER BY seq DESC").fetchone()["entry"])
    assert (entry["what"], entry["who"], entry["target"]) == ("feedback.rejected", "rev", found)
    for wrong in ("new", "gone"):
        with pytest.raises(ConfigWrong):
            review.set_state(home, [found], wrong, "rev")
    with pytest.raises(ConfigWrong):
        review.list_feedback(home, "gone")


def test_a_damaged_file_of_words_is_said(home: Home, answers: Answers) -> None:
    found = accepted(home, answers, "a1", thumb=1)
    feedback.words_path(home, found).write_text('{"text": "half')
    with pytest.raises(DataRejected, match=found) as problem:
        review.read_feedback(home, found)
    assert "half" not in problem.value.message + problem.value.hint


# --- records


def read(path: Path, **columns: Any) -> list[Any]:
    return list(read_records(path, columns_from(columns)))


def test_accepted_answers_become_records_that_import_reads(
    home: Home, tmp_path: Path, answers: Answers
) -> None:
    for name in ("fixed", "liked", "poor", "marked", "waiting", "refused"):
        keep(answers, name, text=f"{name} answer", messages=[{"role": "user", "content": f"{name}?"}])
    accepted(home, answers, "fixed", thumb=-1, correction=CORRECTION)
    liked = accepted(home, answers, "liked", thumb=1)
    accepted(home, answers, "poor", thumb=-1)
    accepted(home, answers, "marked", ratings={"correct": 5})
    give(home, answers, "key1", UP | {"answer_id": "waiting"})
    review.set_state(home, [give(home, answers, "key1", UP | {"answer_id": "refused"})], "rejected", "rev")

    done = review.export_records(home, tmp_path / "out.jsonl", "rev")
    assert (done.kind, done.records) == ("answer", 2)
    assert done.left_out == {"neither corrected nor thumbs-up": 2}
    records = read(done.path, **done.columns, unit="user")
    assert {(each.text, each.answer, each.unit) for each in records} == {
        ("fixed?", CORRECTION, "key1"),
        ("liked?", "liked answer", "key1"),
    }
    assert liked in {each.unit for each in read(done.path, **done.columns, unit="feedback")}
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o600
    with pytest.raises(ConfigWrong):
        review.export_records(home, done.path, "rev")  # never over a file that is there


def test_a_correction_makes_a_pair(home: Home, tmp_path: Path, answers: Answers) -> None:
    keep(answers, "same", text=CORRECTION)
    accepted(home, answers, "a1", correction=CORRECTION)
    accepted(home, answers, "same", correction=CORRECTION)
    done = review.export_records(home, tmp_path / "out.jsonl", "rev", kind="preference")
    (record,) = read(done.path, **done.columns)
    assert (record.text, record.answer, record.rejected) == (QUESTION, CORRECTION, ANSWER)
    assert done.left_out == {"without a correction": 1}


def test_a_conversation_is_written_whole_or_not_at_all(home: Home, tmp_path: Path, answers: Answers) -> None:
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": QUESTION},
    ]
    keep(answers, "long", messages=turns)
    accepted(home, answers, "long", thumb=1)
    with pytest.raises(DataRejected, match="several turns"):
        review.export_records(home, tmp_path / "out.jsonl", "rev")
    done = review.export_records(home, tmp_path / "out.jsonl", "rev", kind="chat")
    (record,) = read(done.path, **done.columns)
    assert json.loads(record.text) == [*turns, {"role": "assistant", "content": ANSWER}]


def test_labels_and_answers_do_not_mix(home: Home, tmp_path: Path, answers: Answers) -> None:
    keep(answers, "label", text="billing", label=True, model="inbox")
    accepted(home, answers, "a1", thumb=1)
    accepted(home, answers, "label", thumb=-1, correction="refill")
    with pytest.raises(ConfigWrong, match="one file holds one kind"):
        review.export_records(home, tmp_path / "out.jsonl", "rev")
    done = review.export_records(home, tmp_path / "out.jsonl", "rev", model="inbox")
    (record,) = read(done.path, **done.columns)
    assert (done.columns, record.text, record.answer) == (
        {"text": "text", "label": "label"},
        QUESTION,
        "refill",
    )


def test_records_can_take_the_columns_of_an_earlier_import(
    home: Home, tmp_path: Path, answers: Answers
) -> None:
    keep(answers, "label", text="billing", label=True)
    accepted(home, answers, "label", thumb=1)
    columns = {"text": "msg", "label": "queue", "unit": "patient", "group": "ward", "facts": ["sex"]}
    folder = tmp_path / "records"
    folder.mkdir()
    old_row = {"msg": "Hi", "queue": "other", "patient": "p1", "ward": "w", "sex": "f"}
    (folder / "old.jsonl").write_text(json.dumps(old_row))
    review.export_records(home, folder / "new.jsonl", "rev", kind="label", columns=columns)
    new, old = read(folder, **columns)
    assert (new.text, new.answer, new.unit, new.group) == (QUESTION, "billing", "user-key1", None)
    assert (old.text, old.unit) == ("Hi", "p1")


def test_nothing_accepted_writes_nothing(home: Home, tmp_path: Path, answers: Answers) -> None:
    give(home, answers, "key1", UP)
    with pytest.raises(DataRejected):
        review.export_records(home, tmp_path / "out.jsonl", "rev")
    assert not (tmp_path / "out.jsonl").exists()
    for wrong in (tmp_path / "out.txt", tmp_path / "nowhere" / "out.jsonl"):
        with pytest.raises(ConfigWrong):
            review.export_records(home, wrong, "rev")
    with pytest.raises(ConfigWrong):
        review.export_records(home, tmp_path / "out.jsonl", "rev", kind="poem")
