"""Documents as arrays of token ids and weights, windows of them, and the first embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from base_model.forms import Document


def encode(tokenizer: Tokenizer, documents: Sequence[Document]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each document its ids [n] (uint16) and weights [n] (float32).

    A document is tokenised as one text, as it will be met; a token has the weight of the stretch
    that its last character is in.
    """
    encodings = tokenizer.encode_batch(["".join(text for text, _ in document) for document in documents])
    found = []
    for document, encoding in zip(documents, encodings, strict=True):
        ends = np.cumsum([len(text) for text, _ in document])
        weights = np.array([weight for _, weight in document], dtype=np.float32)
        last = np.array([max(0, end - 1) for _, end in encoding.offsets])
        found.append(
            (np.array(encoding.ids, dtype=np.uint16), weights[np.searchsorted(ends, last, side="right")])
        )
    return found


def join(encoded: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All documents behind one another: ids [n] and weights [n]."""
    return np.concatenate([ids for ids, _ in encoded]), np.concatenate([weights for _, weights in encoded])


class Windows:
    """Windows of `length` + 1 tokens, in an order that depends on seed and step alone.

    Each pass over the tokens cuts them at another random offset.
    """

    def __init__(self, ids: np.ndarray, weights: np.ndarray, *, length: int, batch: int, seed: int) -> None:
        self.ids, self.weights = torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(weights)
        self.length, self.batch, self.seed = length, batch, seed
        self.per_pass = (len(ids) - 1 - length) // length // batch
        if self.per_pass < 1:
            raise ValueError(f"{len(ids)} tokens are not enough for one step")
        self._pass, self._starts = -1, torch.empty(0, dtype=torch.int64)

    def step(self, number: int) -> tuple[Tensor, Tensor]:
        """The tokens [batch, length + 1] and target weights [batch, length] of step `number` (from 0)."""
        turn, place = divmod(number, self.per_pass)
        if turn != self._pass:
            dice = np.random.default_rng((self.seed, turn))
            offset = int(dice.integers(self.length))
            order = dice.permutation(self.per_pass * self.batch)
            self._pass, self._starts = turn, torch.from_numpy(order * self.length + offset)
        starts = self._starts[place * self.batch : (place + 1) * self.batch]
        places = starts[:, None] + torch.arange(self.length + 1)
        return self.ids[places], self.weights[places][:, 1:]


def embeddings(ids: np.ndarray, *, vocabulary: int, width: int, seed: int, reach: int = 4) -> Tensor:
    """First embeddings [vocabulary, width]: the PPMI matrix of the tokens, by SVD; std .02.

    Co-occurrences within `reach` count 1/distance; the context distribution is smoothed to the
    power .75 (Levy, Goldberg and Dagan 2015).
    """
    counts = np.zeros(vocabulary * vocabulary)
    wide = ids.astype(np.int64)
    for distance in range(1, reach + 1):
        pairs = wide[:-distance] * vocabulary + wide[distance:]
        counts += np.bincount(pairs, minlength=vocabulary**2) / distance
    square = counts.reshape(vocabulary, vocabulary)
    square += square.T.copy()
    rows = square.sum(1, keepdims=True)
    context = rows[:, 0] ** 0.75
    expected = rows * (context / context.sum())[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        ppmi = np.log(square / expected)
    ppmi = torch.from_numpy(np.where(ppmi > 0, ppmi, 0.0).astype(np.float32))
    # One thread, here too: the bits of the factors depend on how the sums are shared out.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    left, values, _ = torch.svd_lowrank(ppmi, q=width + 32, niter=4)
    vectors = left[:, :width] * values[:width].sqrt()
    vectors = vectors - vectors.mean(0)
    return vectors * (0.02 / vectors.std())
