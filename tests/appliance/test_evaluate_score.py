from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong, EngineFailed
from appliance.evaluate.backends import TorchScorer
from appliance.evaluate.metrics import NONE
from appliance.evaluate.score import Row, score, tokenise
from appliance.models.encoding import Encoded, Encoder
from appliance.models.task import Task
from appliance.models.trie import LabelTrie

BASE = Path(__file__).parents[2] / "appliance" / "models" / "base"
# Some share their first tokens, and one is the start of another.
LABELS = ("card", "card lost", "cards and cash", "transfer", "transfer abroad", "opening hours")
TEXTS = (
    "I left my card on the bus, please block it",
    "how long does a transfer to Spain take",
    "when are you open on Saturday",
    "Hello",
    "my phone is broken " * 12,
)


def record(number: int, text: str, answer: str) -> SimpleNamespace:
    return SimpleNamespace(id=f"r{number}", text=text, answer=answer)


@pytest.fixture(scope="module")
def torch_scorer() -> Iterator[TorchScorer]:
    scorer = TorchScorer(BASE)
    yield scorer
    scorer.close()


class Table:
    """A model as a table: the logits of a position depend on the tokens up to it alone."""

    context, max_tokens, n_vocab = 64, 40, 12

    def __init__(self) -> None:
        self.asked: list[list[tuple[int, ...]]] = []

    def encoder(self, task: Task) -> Encoder:
        raise NotImplementedError

    def row(self, tokens: tuple[int, ...]) -> NDArray[np.float32]:
        seed = [7, *tokens]
        return np.random.default_rng(seed).normal(0, 3, self.n_vocab).astype(np.float32)

    def logits(self, prompts_tokens: list[list[int]], keep: list[int]) -> list[NDArray[np.float32]]:
        self.asked.append([tuple(tokens) for tokens in prompts_tokens])
        return [
            np.stack([self.row(tuple(tokens[:at])) for at in range(len(tokens) - k + 1, len(tokens) + 1)])
            for tokens, k in zip(prompts_tokens, keep, strict=True)
        ]


TRIE = LabelTrie({"a": (2,), "ab": (2, 3), "abc": (2, 3, 4), "ad": (2, 5, 6), "x": (7, 8)}, end=1)
NAMES = ("a", "ab", "abc", "ad", "x")
TASK = Task(kind="label", prompt="{text}", labels=NAMES)
PLAIN = {"a": (2,), "ab": (2, 3), "abc": (2, 3, 4), "ad": (2, 5, 6), "x": (7, 8)}


def table_rows(count: int) -> list[Row]:
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        gold = int(random.integers(len(NAMES)))
        prompt = tuple(int(token) for token in random.integers(2, 12, random.integers(1, 9)))
        tokens = Encoded(prompt=prompt, answer=(*PLAIN[NAMES[gold]], 1))
        rows.append(Row(id=str(number), tokens=tokens, gold=gold))
    return rows


def decoded(model: Table, prompt: tuple[int, ...]) -> tuple[str, float]:
    """The walk as serving does it: one token after the other."""
    prefix: tuple[int, ...] = ()
    sure = 1.0
    while allowed := TRIE.allowed(prefix):
        logits = model.row(prompt + prefix)[list(allowed)].astype(np.float64)
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        sure *= shares.max()
        prefix = (*prefix, allowed[int(shares.argmax())])
    return TRIE.label(prefix) or "", float(sure)


def test_one_pass_and_a_few_more_equal_decoding_token_by_token() -> None:
    model, rows = Table(), table_rows(300)
    found = score(model, rows, TASK, TRIE)
    for at, row in enumerate(rows):
        assert row.tokens is not None
        label, sure = decoded(model, row.tokens.prompt)
        assert NAMES[found.predicted[at]] == label
        assert found.confidence[at] == pytest.approx(sure)
    assert len(set(found.predicted.tolist())) == len(NAMES)
    walked_on = len([1 for batch in model.asked for _ in batch]) - len(rows)
    assert 0 < walked_on < len(rows) / 2


def test_free_answers_and_likelihood_are_those_of_the_teacher_forced_answer() -> None:
    model, rows = Table(), table_rows(300)
    found = score(model, rows, TASK, TRIE)
    for at, row in enumerate(rows):
        assert row.tokens is not None
        nats, greedy = 0.0, True
        for place, token in enumerate(row.tokens.answer):
            logits = model.row(row.tokens.prompt + row.tokens.answer[:place]).astype(np.float64)
            nats += math.log(np.exp(logits).sum()) - logits[token]
            greedy &= int(logits.argmax()) == token
        assert found.nll[at] == pytest.approx(nats)
        assert found.tokens[at] == len(row.tokens.answer)
        assert found.free[at] == greedy
    assert 0 < found.free.sum() < 300


def test_batches_hold_rows_of_like_length_within_the_limit() -> None:
    model, told = Table(), []
    score(model, table_rows(120), TASK, None, told.append)
    for batch in model.asked:
        assert len(batch) * max(map(len, batch)) <= model.max_tokens
    assert told == sorted(told) and told[-1] == 120


def test_rows_that_do_not_fit_count_as_wrong_and_have_no_tokens() -> None:
    rows = table_rows(10)
    rows[3] = dataclasses.replace(rows[3], tokens=None)
    found = score(Table(), rows, TASK, TRIE)
    assert (found.predicted[3], found.tokens[3], found.nll[3]) == (NONE, 0, 0.0)
    assert not found.fits[3] and not found.right[3] and not found.free[3]


def test_refuses_a_broken_model_and_an_empty_split() -> None:
    class Broken(Table):
        def row(self, tokens: tuple[int, ...]) -> NDArray[np.float32]:
            return np.full(self.n_vocab, np.nan, np.float32)

    with pytest.raises(EngineFailed):
        score(Broken(), table_rows(3), TASK, TRIE)
    with pytest.raises(ConfigWrong):
        score(Table(), [], TASK, TRIE)


def test_torch_scores_equal_generation_by_transformers(torch_scorer: TorchScorer) -> None:
    import torch

    task = Task(kind="label", prompt="Message: {text}\nLabel?", labels=LABELS)
    encoder = torch_scorer.encoder(task)
    records = [record(n, text, LABELS[n]) for n, text in enumerate(TEXTS)]
    rows, trie = tokenise(encoder, records), encoder.trie()
    found = score(torch_scorer, rows, task, trie)
    model = torch_scorer._model
    for at, row in enumerate(rows):
        assert row.tokens is not None
        prompt = torch.tensor([row.tokens.prompt])
        start = prompt.shape[1]
        written = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=0,
            prefix_allowed_tokens_fn=lambda _, ids, start=start: (
                list(trie.allowed(tuple(ids[start:].tolist()))) or [encoder.eos]
            ),
        )[0, start:].tolist()
        label = max(
            (name for name, tokens in trie.sequences.items() if tuple(written[: len(tokens)]) == tokens),
            key=lambda name: len(trie.sequences[name]),
        )
        assert LABELS[found.predicted[at]] == label
        tokens = torch.tensor([row.tokens.tokens])
        with torch.inference_mode():
            alone = torch.log_softmax(model(tokens).logits[0, start - 1 : -1].double(), -1)
        nats = -alone[range(len(row.tokens.answer)), row.tokens.answer].sum()
        assert found.nll[at] == pytest.approx(float(nats), abs=1e-4)


def test_what_the_model_writes_freely_counts_as_right_and_nothing_else_does(
    torch_scorer: TorchScorer,
) -> None:
    import torch

    text = "What is the weather like in Berlin?"
    task = Task(kind="answer", prompt="Message: {text}\nLabel?")
    encoder = torch_scorer.encoder(task)
    prompt = torch.tensor([encoder.prompt(text)])
    written = torch_scorer._model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12, pad_token_id=0
    )[0, prompt.shape[1] :]
    assert written[-1] == encoder.eos
    answer = torch_scorer._tokenizer.decode(written[:-1]).strip()
    rows = tokenise(encoder, [record(0, text, answer), record(1, text, answer + " now")])
    found = score(torch_scorer, rows, task, None)
    assert found.free.tolist() == [True, False]
    assert found.predicted.tolist() == [NONE, NONE] and not found.right.any()


def test_long_texts_are_cut_and_said_to_be(torch_scorer: TorchScorer) -> None:
    task = Task(kind="label", prompt="Message: {text}\nLabel?", labels=LABELS)
    rows = tokenise(
        torch_scorer.encoder(task),
        [record(0, "word " * 2000, "card"), record(1, "word " * 300, "card"), record(2, "word", "card")],
    )
    assert [row.cut for row in rows] == [True, False, False]
    assert all(row.tokens is not None and len(row.tokens.tokens) <= torch_scorer.context for row in rows)


def test_an_unknown_label_is_refused(torch_scorer: TorchScorer) -> None:
    task = Task(kind="label", prompt="{text}", labels=LABELS)
    with pytest.raises(ConfigWrong):
        tokenise(torch_scorer.encoder(task), [record(0, "hello", "loan")])
