"""What a model answers, row by row, from logits alone: the same code for torch and for GGUF.

One teacher-forced pass over prompt and answer gives nearly everything: the likelihood of the
answer, whether free greedy decoding would write exactly it (the largest logit is the answer's token
at each of its positions, EOS included), and the greedy walk down the label trie as long as it
follows the answer. Only a walk that leaves the answer and is not yet at the end of a label needs
another pass. Ties go to the smaller token id.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong, DataRejected, EngineFailed
from appliance.evaluate.metrics import NONE
from appliance.models.encoding import Encoded, Encoder
from appliance.models.task import Task
from appliance.models.trie import LabelTrie

_KEPT_LOGITS = 32_000_000  # numbers returned by one call: 128 MB


class Scorer(Protocol):
    """A model that gives logits. A prompt has at most `context` tokens; one call should hold at most
    `max_tokens`, counted as prompts times the longest of them.
    """

    context: int
    max_tokens: int
    n_vocab: int

    def encoder(self, task: Task) -> Encoder:
        """What turns a record of `task` into this model's tokens."""
        ...

    def logits(self, prompts_tokens: list[list[int]], keep: list[int]) -> list[NDArray[np.float32]]:
        """For each prompt the logits of its last keep[i] positions, [keep[i], n_vocab]."""
        ...


class Question(Protocol):
    """What scoring needs of a record."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def answer(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record as tokens. `gold` is the number of its label, or NONE in a task without labels.
    `cut`: the text lost its end to fit; `tokens` is None where not even the answer fits.
    """

    id: str
    tokens: Encoded | None
    gold: int
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One entry a row, in the order given. Where `fits` is False the row was not scored: it counts as
    wrong and has no tokens.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    gold: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    free: NDArray[np.bool_]
    nll: NDArray[np.float64]
    tokens: NDArray[np.int64]
    fits: NDArray[np.bool_]
    cut: NDArray[np.bool_]
    tokens_sha256: str

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the constrained answer is the record's label."""
        return np.asarray((self.predicted == self.gold) & (self.gold != NONE))


def tokenise(encoder: Encoder, records: Sequence[Question]) -> list[Row]:
    """The records as the model was tuned on them.

    Raises:
        ConfigWrong: an answer in a label task that is not one of its labels.
    """
    task = encoder.task
    numbers = {label: number for number, label in enumerate(task.labels)} if task.kind == "label" else {}
    if task.kind == "label" and not {record.answer for record in records} <= numbers.keys():
        raise ConfigWrong(
            "Some records have a label that is not among the task's.",
            "Evaluate on the dataset the model was tuned on.",
        )
    return [_row(encoder, record, numbers.get(record.answer, NONE)) for record in records]


def _row(encoder: Encoder, record: Question, gold: int) -> Row:
    try:
        tokens = encoder.encode(record.text, record.answer)
    except DataRejected:
        return Row(id=record.id, tokens=None, gold=gold)
    return Row(id=record.id, tokens=tokens, gold=gold, cut=tokens.cut > 0)


def score(
    scorer: Scorer,
    rows: Sequence[Row],
    task: Task,
    trie: LabelTrie | None,
    told: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Score all rows in batches of like length; `told` hears how many rows are done.

    Without a `trie` no label is predicted: perplexity and free answers only.

    Raises:
        ConfigWrong: there are no rows. EngineFailed: the model gives logits that are not numbers.
    """
    if not rows:
        raise ConfigWrong("There are no records to score.", "Evaluate a split that has records.")
    count = len(rows)
    free, nll, tokens = np.zeros(count, bool), np.zeros(count), np.zeros(count, np.int64)
    work = {at: row.tokens for at, row in enumerate(rows) if row.tokens is not None}
    walks = {at: _Walk() for at in work} if trie is not None else {}
    done = count - len(work)
    sizes = {at: (len(found.tokens), len(found.answer)) for at, found in work.items()}
    for batch in batches(sizes, scorer):
        parts = [work[at] for at in batch]
        blocks = scorer.logits([[*p.prompt, *p.answer[:-1]] for p in parts], [len(p.answer) for p in parts])
        for at, part, block in zip(batch, parts, blocks, strict=True):
            answer = np.array(part.answer)
            nll[at], tokens[at] = _nll(block, answer), len(answer)
            if math.isnan(nll[at]):
                raise EngineFailed("The model gives logits that are not numbers.", "Its file is damaged.")
            free[at] = bool((block.argmax(axis=1) == answer).all())
            if trie is not None:
                walks[at].follow(trie, block, part.answer)
        done += len(batch)
        told(done)
    predicted, confidence = np.full(count, NONE, np.int64), np.zeros(count)
    if trie is not None:
        _finish(scorer, work, walks, trie)
        numbers = {label: number for number, label in enumerate(task.labels)}
        for at, walk in walks.items():
            predicted[at], confidence[at] = numbers[trie.label(walk.prefix) or ""], walk.confidence
    return Scores(
        ids=tuple(row.id for row in rows),
        labels=task.labels if trie is not None else (),
        gold=np.array([row.gold for row in rows], np.int64),
        predicted=predicted,
        confidence=confidence,
        free=free,
        nll=nll,
        tokens=tokens,
        fits=np.array([row.tokens is not None for row in rows]),
        cut=np.array([row.cut for row in rows]),
        tokens_sha256=_fingerprint(rows),
    )


@dataclass
class _Walk:
    """A greedy walk down the trie: where it stands, and how sure it was so far."""

    prefix: tuple[int, ...] = ()
    confidence: float = 1.0

    def step(self, trie: LabelTrie, logits: NDArray[np.float32]) -> None:
        """Take the best allowed token, then all steps that leave no choice."""
        allowed = np.array(trie.allowed(self.prefix))
        if len(allowed) > 1:
            choice = logits[allowed].astype(np.float64)
            shares = np.exp(choice - choice.max())
            best = int(choice.argmax())
            self.confidence *= float(shares[best] / shares.sum())
            self.prefix = (*self.prefix, int(allowed[best]))
        self.slide(trie)

    def slide(self, trie: LabelTrie) -> None:
        """Take all steps that leave no choice."""
        while len(allowed := trie.allowed(self.prefix)) == 1:
            self.prefix = (*self.prefix, *allowed)

    def follow(self, trie: LabelTrie, block: NDArray[np.float32], answer: tuple[int, ...]) -> None:
        """Walk as far as the teacher-forced logits [len(answer), n_vocab] hold."""
        self.slide(trie)
        while trie.allowed(self.prefix) and self.prefix == answer[: len(self.prefix)]:
            self.step(trie, block[len(self.prefix)])


def _finish(scorer: Scorer, work: Mapping[int, Encoded], walks: Mapping[int, _Walk], trie: LabelTrie) -> None:
    """Walk on with new passes where the walk has left the answer."""
    while sizes := {
        at: (len(work[at].prompt) + len(walk.prefix), 1)
        for at, walk in walks.items()
        if trie.allowed(walk.prefix)
    }:
        for batch in batches(sizes, scorer):
            prompts = [[*work[at].prompt, *walks[at].prefix] for at in batch]
            for at, block in zip(batch, scorer.logits(prompts, [1] * len(batch)), strict=True):
                walks[at].step(trie, block[0])


def batches(sizes: Mapping[int, tuple[int, int]], scorer: Scorer) -> Iterator[list[int]]:
    """Row numbers, shortest rows first, cut where tokens or kept logits would pass their limit.
    `sizes`: tokens and kept positions of each row.
    """
    batch: list[int] = []
    kept = 0
    for at in sorted(sizes, key=lambda at: (*sizes[at], at)):
        length, keep = sizes[at]
        too_many = (len(batch) + 1) * length > scorer.max_tokens
        if batch and (too_many or (kept + keep) * scorer.n_vocab > _KEPT_LOGITS):
            yield batch
            batch, kept = [], 0
        batch.append(at)
        kept += keep
    if batch:
        yield batch


def _nll(block: NDArray[np.float32], answer: NDArray[np.int64]) -> float:
    """Summed nats of `answer` under the logits [len(answer), n_vocab]."""
    wide = block.astype(np.float64)
    top = wide.max(axis=1)
    total = top + np.log(np.exp(wide - top[:, None]).sum(axis=1))
    return float((total - wide[np.arange(len(answer)), answer]).sum())


def _fingerprint(rows: Sequence[Row]) -> str:
    """SHA-256 over all token ids, to tell whether two engines read the same text alike."""
    digest = hashlib.sha256()
    for row in rows:
        tokens = row.tokens or Encoded(prompt=(), answer=())
        digest.update(np.array([len(tokens.prompt), len(tokens.answer), *tokens.tokens], "<i4").tobytes())
    return digest.hexdigest()
