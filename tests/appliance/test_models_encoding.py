"""Records in tokens, under the shipped base's own tokenizer and under templates of other habits."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from appliance.core.errors import DataRejected, ModelRejected
from appliance.evaluate.backends import TorchScorer
from appliance.evaluate.score import score, tokenise
from appliance.models.encoding import Encoded, Encoder, Pair
from appliance.models.importing import DEMO_BASE
from appliance.models.load import encoder_for, load_tokenizer
from appliance.models.prompt import render
from appliance.models.task import PROMPT, Task

SYSTEM = {"role": "system", "content": "You are a nurse. Be brief."}
TURNS = [
    {"role": "user", "content": "I have a rash on my arm since Monday."},
    {"role": "assistant", "content": "Does it itch?\nIs it warm?"},
    {"role": "user", "content": " Yes, at night.\n"},
    {"role": "assistant", "content": "Take a photo and send it, please."},
    {"role": "user", "content": "And if it spreads?"},
]
LAST = "Then call us at once."
CHAT = json.dumps([SYSTEM, *TURNS])
SAID = ["Does it itch?\nIs it warm?", "Take a photo and send it, please.", LAST]

# Line ends behind the end of a turn; nothing but a line end; another writing of turns that are behind.
LINES = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
FORGETS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|> "
    "{% if m['role'] != 'assistant' or loop.last %}{{ m['content'] | trim }}{% else %}...{% endif %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REFUSES = "{{ raise_exception('no conversations') }}"
OTHERWISE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> <think>{% endif %}"
)
SILENT = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def words() -> Any:
    return load_tokenizer(DEMO_BASE)


@pytest.fixture(scope="module")
def make(words: Any) -> Any:
    def make(kind: str, *, limit: int = 512, **other: Any) -> Encoder:
        task = Task(kind=kind, prompt="{text}" if kind in ("answer", "preference") else "")
        return replace(encoder_for(words, DEMO_BASE, task, limit), **other)

    return make


def written(encoder: Encoder, messages: list[dict[str, str]], opened: bool) -> str:
    return render(
        encoder.template,
        messages,
        bos_token=encoder.bos_token,
        eos_token=encoder.eos_token,
        add_generation_prompt=opened,
    )


def learnt(encoded: Encoded) -> list[list[int]]:
    """The runs of tokens that are learnt, in order."""
    marks = encoded.learnt or (True,) * len(encoded.answer)
    assert len(marks) == len(encoded.answer)
    runs: list[list[int]] = []
    for place, (token, mark) in enumerate(zip(encoded.answer, marks, strict=True)):
        if mark and (place == 0 or not marks[place - 1]):
            runs.append([])
        if mark:
            runs[-1].append(token)
    return runs


def test_every_turn_of_the_assistant_is_learnt_and_nothing_else(make, words):
    encoder = make("chat")
    found = encoder.example(CHAT, LAST)
    assert [words.decode(run) for run in learnt(found)] == [f" {said}</s>" for said in SAID]
    whole = [SYSTEM, *TURNS, {"role": "assistant", "content": LAST}]
    assert list(found.tokens) == encoder.tokenize(written(encoder, whole, False))
    assert list(found.prompt) == encoder.tokenize(written(encoder, whole[:2], True))
    assert found.cut == 0 and found.sequences == (found,)


@pytest.mark.parametrize("template", [None, LINES])
def test_before_each_learnt_turn_stands_the_prompt_that_serving_makes(make, template):
    encoder = make("chat", **({"template": template} if template else {}))
    found = encoder.example(CHAT, LAST)
    whole = [SYSTEM, *TURNS, {"role": "assistant", "content": LAST}]
    starts = [
        len(found.prompt) + place
        for place, mark in enumerate(found.learnt)
        if mark and (place == 0 or not found.learnt[place - 1])
    ]
    assert len(starts) == 3
    for start, turn in zip(starts, (2, 4, 6), strict=True):
        assert list(found.tokens[:start]) == encoder.tokenize(written(encoder, whole[:turn], True))


def test_white_space_behind_the_end_of_a_turn_is_read_but_not_learnt(make, words):
    encoder = make("chat", template=LINES)
    found = encoder.example(CHAT, LAST)
    assert [words.decode(run) for run in learnt(found)] == [f"{said}</s>" for said in SAID]
    whole = written(encoder, [SYSTEM, *TURNS, {"role": "assistant", "content": LAST}], False)
    assert words.decode(found.tokens) == whole.removesuffix("\n")


def test_what_a_template_writes_behind_the_end_token_is_not_learnt(make, words):
    encoder = make("chat", template=LINES.replace("{{ eos_token }}", "{{ eos_token }}[over]"))
    found = encoder.example(CHAT, LAST)
    assert [words.decode(run) for run in learnt(found)] == [f"{said}</s>" for said in SAID]
    assert words.decode(found.tokens).count("[over]") == 6 and found.tokens[-1] == encoder.eos


def test_a_template_without_end_tokens_gets_one_after_the_last_turn(make, words):
    encoder = make("chat", template=NO_END)
    found = encoder.example(CHAT, LAST)
    assert [words.decode(run) for run in learnt(found)] == [*SAID[:2], f"{LAST}</s>"]
    assert found.tokens.count(encoder.eos) == 1


def test_a_template_that_rewrites_earlier_turns_learns_the_last_one(make, words):
    encoder = make("chat", template=FORGETS)
    found = encoder.example(CHAT, LAST)
    assert found == encoder.encode(CHAT, LAST)
    assert [words.decode(run) for run in learnt(found)] == [f" {LAST}</s>"]
    assert words.decode(found.prompt).count("...") == 2


@pytest.mark.parametrize(
    ("template", "says"),
    [(REFUSES, "no conversations"), (OTHERWISE, "otherwise"), (SILENT, "leaves the assistant's words out")],
)
def test_a_template_that_cannot_write_conversations_is_refused(make, template, says):
    encoder = make("chat", template=template)
    for encode in (encoder.example, encoder.encode):
        with pytest.raises(ModelRejected, match=says) as caught:
            encode(CHAT, LAST)
        assert caught.value.hint and "rash" not in caught.value.message


def test_an_end_token_that_a_person_spells_does_not_end_what_is_learnt(make, words):
    encoder = make("chat")
    found = encoder.example(json.dumps(TURNS[:1]), "write </s> here")
    assert [words.decode(run) for run in learnt(found)] == [" write </s> here</s>"]


def test_a_chat_of_one_question_is_what_an_answer_task_learns(make):
    question = TURNS[0]["content"]
    chat = make("chat").example(json.dumps(TURNS[:1]), LAST)
    assert chat == make("answer").example(question, LAST) == make("answer").encode(question, LAST)
    assert chat.learnt is None


def test_evaluation_scores_the_last_turn_after_the_prompt_of_serving(make, words):
    encoder = make("chat")
    found = encoder.encode(CHAT, LAST)
    assert found.prompt == encoder.prompt(CHAT)
    assert words.decode(found.answer) == f" {LAST}</s>" and found.learnt is None
    assert found.tokens == encoder.example(CHAT, LAST).tokens


def test_a_long_chat_loses_its_oldest_exchanges_and_keeps_the_system_turn(make, words):
    whole = make("chat").example(CHAT, LAST)
    encoder = make("chat", limit=len(whole.tokens) - 1)
    for encode in (encoder.example, encoder.encode):
        found = encode(CHAT, LAST)
        assert found.cut == len(whole.tokens) - len(found.tokens)
        kept = [SYSTEM, *TURNS[2:], {"role": "assistant", "content": LAST}]
        assert list(found.tokens) == encoder.tokenize(written(encoder, kept, False))
    assert [words.decode(run) for run in learnt(encoder.example(CHAT, LAST))] == [
        f" {s}</s>" for s in SAID[1:]
    ]


def test_no_more_exchanges_are_dropped_than_needed(make):
    many = [{"role": ("user", "assistant")[n % 2], "content": f"turn number {n}"} for n in range(61)]
    whole = make("chat").example(json.dumps(many), LAST)
    last = None
    for limit in range(60, 350, 17):
        found = make("chat", limit=limit).example(json.dumps(many), LAST)
        assert len(found.tokens) <= limit and found.cut == len(whole.tokens) - len(found.tokens)
        assert limit - len(found.tokens) < 24  # an exchange takes fewer tokens than that
        assert last is None or len(found.tokens) >= last
        last = len(found.tokens)


def test_the_last_question_loses_its_end_only_when_it_is_alone_and_too_long(make, words):
    long = [SYSTEM, *TURNS[:2], {"role": "user", "content": "begin " + "very " * 300 + "end"}]
    encoder = make("chat", limit=80)
    whole = make("chat", limit=5000).example(json.dumps(long), LAST)
    found = encoder.example(json.dumps(long), LAST)
    said = words.decode(found.tokens)
    assert "nurse" in said and "begin very" in said and "rash" not in said
    assert "end<" not in said and said.endswith(f"<|assistant|> {LAST}</s>")
    assert 60 < len(found.tokens) <= 80 and found.cut == len(whole.tokens) - len(found.tokens)
    with pytest.raises(DataRejected, match="does not fit"):
        make("chat", limit=20).example(json.dumps(long), "word " * 30)


@pytest.mark.parametrize("text", ["", "hello", "[]", "3", '[{"role":"user"}]', json.dumps(TURNS[:2])])
def test_a_chat_that_is_none_is_refused(make, text):
    for encode in (lambda: make("chat").example(text, LAST), lambda: make("chat").prompt(text)):
        with pytest.raises(DataRejected) as caught:
            encode()
        assert "rash" not in caught.value.message


def test_a_tokenizer_that_begins_every_text_with_a_space_gives_the_tokens_of_the_whole(make, words):
    encoder = make("chat", template=NO_END.replace(": ", ":\n"), bos_token="")
    spaced = replace(encoder, tokenize=lambda text: words(" " + text, add_special_tokens=False)["input_ids"])
    found = spaced.example(CHAT, LAST)
    whole = written(spaced, [SYSTEM, *TURNS, {"role": "assistant", "content": LAST}], False).rstrip()
    assert list(found.tokens) == [*spaced.tokenize(whole), encoder.eos]
    assert list(found.prompt) == spaced.tokenize(written(spaced, [SYSTEM, *TURNS[:1]], True))
    assert [words.decode(run) for run in learnt(found)] == [*SAID[:2], f"{LAST}</s>"]


def test_running_text_is_learnt_from_its_first_token_to_its_end(make, words):
    text = "  Seen today for a rash.\nBetter since.\n"
    found = make("text").example(text, "")
    assert found.prompt == (words.bos_token_id,) == make("text").prompt(text)
    assert list(found.answer) == [*words(text, add_special_tokens=False)["input_ids"], words.eos_token_id]
    assert (found.learnt, found.cut) == (None, 0)
    without = make("text", bos_token="").example(text, "")
    assert without.tokens == found.tokens[1:] and len(without.prompt) == 1
    assert make("text").encode(text, "") == found


def test_running_text_is_cut_to_the_limit_and_its_cut_end_is_not_taught_as_an_end(make, words):
    text = "over and over " * 100
    whole = make("text", limit=10_000).example(text, "")
    found = make("text", limit=50).example(text, "")
    assert found.tokens == whole.tokens[:50] and found.cut == len(whole.tokens) - 50
    assert words.eos_token_id not in found.tokens
    just = make("text", limit=len(whole.tokens)).example(text, "")
    assert just == whole and just.cut == 0


def test_a_preference_is_two_answers_to_one_prompt(make):
    pair = make("preference").example("Which one?", "the good one", "the bad")
    answers = make("answer")
    assert isinstance(pair, Pair)
    assert pair.sequences == (
        answers.encode("Which one?", "the good one"),
        answers.encode("Which one?", "the bad"),
    )
    assert make("preference").encode("Which one?", "the good one") == pair.chosen


@pytest.mark.parametrize("swapped", [False, True])
def test_a_long_question_is_cut_by_the_need_of_the_longer_answer(make, swapped):
    text, answers = "why oh why " * 60, ("yes", "because " * 20)
    chosen, rejected = answers[::-1] if swapped else answers
    pair = make("preference", limit=100).example(text, chosen, rejected)
    whole = make("preference", limit=10_000).example(text, chosen, rejected)
    assert pair.chosen.prompt == pair.rejected.prompt
    assert [part.answer for part in pair.sequences] == [part.answer for part in whole.sequences]
    assert 80 < max(len(part.tokens) for part in pair.sequences) <= 100
    lost = len(whole.chosen.prompt) - len(pair.chosen.prompt)
    assert sum(part.cut for part in pair.sequences) == lost > 0


def test_what_was_cut_from_a_question_is_counted(make):
    text = "why oh why " * 60
    whole, found = (
        make("answer", limit=10_000).encode(text, LAST),
        make("answer", limit=100).encode(text, LAST),
    )
    assert whole.cut == 0
    assert found.cut == len(whole.tokens) - len(found.tokens) > 0
    assert found.answer == whole.answer and 90 < len(found.tokens) <= 100


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        ("answer", ("question", " \n")),
        ("label", ("question", "")),
        ("chat", (CHAT, " ")),
        ("text", (" \n", "")),
        ("preference", ("question", "", "bad")),
        ("preference", ("question", "good", " ")),
    ],
)
def test_an_empty_answer_is_refused(make, kind, record):
    with pytest.raises(DataRejected, match="no tokens"):
        make(kind).example(*record)


def test_an_answer_that_becomes_no_token_is_refused(make):
    deaf = make("answer", tokenize=lambda text: [] if text.startswith(" ") else [5, 6])
    with pytest.raises(DataRejected, match="no tokens"):
        deaf.encode("question", "unheard of")


def test_an_answer_that_does_not_fit_is_refused(make):
    for kind, answers in (("answer", ["word " * 40]), ("preference", ["good", "word " * 40])):
        with pytest.raises(DataRejected, match="does not fit into 30"):
            make(kind, limit=30).example("question", *answers)


def test_evaluation_gives_perplexity_and_free_answers_for_every_kind():
    scorer = TorchScorer(DEMO_BASE)
    kept: dict[str, np.ndarray] = {}
    texts = {
        "chat": CHAT,
        "text": "Seen today for a rash on the arm.",
        "preference": "Which?",
        "answer": "Which?",
    }
    for kind, text in texts.items():
        task = Task(kind=kind, prompt="{text}" if kind in ("answer", "preference") else "")
        answer = "" if kind == "text" else LAST
        record = SimpleNamespace(id="1", text=text, answer=answer)
        scores = score(scorer, tokenise(scorer.encoder(task), [record]), task, None)
        assert scores.fits.all() and not scores.cut.any() and scores.tokens[0] > 4
        assert 0 < scores.nll[0] / scores.tokens[0] < 12 and not scores.free[0]
        kept[kind] = scores.nll
    assert kept["preference"] == kept["answer"]
    scorer.close()


def test_the_label_prompt_is_what_it_was(make, words):
    task = Task(kind="label", prompt=PROMPT, labels=("a", "b"))
    encoder = replace(make("label"), task=task)
    found = encoder.example(" my text ", "a")
    assert words.decode(found.tokens) == "<s><|user|> Message: my text\nLabel?</s><|assistant|> a</s>"
