"""What a base knows and what can be made of it.

    PYTHONPATH=packaging python -m base_model.probe MODEL --data DIR

Greedy exact labels and loss on the recipe's held-out rows, and how well Banking77, which no base
of this recipe has seen, can be read off the frozen states at the label position: untuned, by a
linear head, and by a linear head under differential privacy as a quick stand-in for private tuning.
The private head is a probe, not the product's trainer: its noise is a seeded ordinary generator's.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from base_model import forms, sources
from base_model.forms import LABEL, Document
from base_model.pack import encode
from base_model.pretrain import Settings

BANK15 = {
    "card_arrival": "arrival",
    "card_linking": "link",
    "exchange_rate": "rate",
    "declined_card_payment": "declined",
    "pending_transfer": "pending",
    "cancel_transfer": "cancel",
    "request_refund": "refund",
    "change_pin": "change",
    "age_limit": "age",
    "terminate_account": "close",
    "country_support": "country",
    "lost_or_stolen_card": "lost",
    "edit_personal_details": "details",
    "passcode_forgotten": "password",
    "transaction_charged_twice": "twice",
}
EPSILON = 8.0


class Base:
    """A model folder, its tokenizer, and batched passes over documents."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def passes(
        self, documents: Sequence[Document], size: int = 32
    ) -> list[tuple[Tensor, Tensor, np.ndarray]]:
        """For each document its ids [n], final states [n, hidden] and weights [n]."""
        coded = encode(self.tokenizer, documents)
        order = sorted(range(len(coded)), key=lambda place: len(coded[place][0]))
        found: dict[int, tuple[Tensor, Tensor, np.ndarray]] = {}
        for start in range(0, len(order), size):
            places = order[start : start + size]
            rows = [torch.from_numpy(coded[place][0].astype(np.int64)) for place in places]
            # Padding stands on the right, where a causal model's earlier positions do not see it.
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            with torch.no_grad():
                states = self.model.model(padded).last_hidden_state
            for place, row, state in zip(places, rows, states, strict=True):
                found[place] = (row, state[: len(row)], coded[place][1])
        return [found[place] for place in range(len(documents))]

    def logits(self, states: Tensor) -> Tensor:
        """Logits [n, vocabulary] of states [n, hidden]."""
        with torch.no_grad():
            return self.model.lm_head(states)


def exact(base: Base, documents: Sequence[Document]) -> float:
    """The share of documents whose label, end mark included, greedy decoding would write.

    Greedy decoding writes it exactly when every token of it is the argmax after the ones before.
    """
    right = 0
    for ids, states, weights in base.passes(documents):
        places = torch.from_numpy(np.flatnonzero(weights == LABEL))
        right += bool((base.logits(states[places - 1]).argmax(-1) == ids[places]).all())
    return right / len(documents)


def held_loss(base: Base, documents: Sequence[Document]) -> tuple[float, float]:
    """Mean cross-entropy per learnt token and per label token, each token counted once."""
    every, label = [], []
    for ids, states, weights in base.passes(documents):
        places = torch.from_numpy(np.flatnonzero(weights[1:] > 0))
        losses = functional.cross_entropy(base.logits(states[places]), ids[places + 1], reduction="none")
        every.append(losses)
        label.append(losses[torch.from_numpy(weights[1:])[places] == LABEL])
    return float(torch.cat(every).mean()), float(torch.cat(label).mean())


def features(base: Base, texts: Sequence[str]) -> np.ndarray:
    """The final states at the label position, [n, hidden]."""
    asked = [forms.labelled(text, "x")[:-1] for text in texts]
    return torch.stack([states[-1] for _, states, _ in base.passes(asked)]).numpy()


def noise_for(epsilon: float, delta: float, steps: int) -> float:
    """The noise multiplier of `steps` full-batch Gaussian steps (Balle and Wang 2018, composed as one)."""

    def spent(mu: float) -> float:
        def normal(x: float) -> float:
            return 0.5 * math.erfc(-x / math.sqrt(2))

        return normal(mu / 2 - epsilon / mu) - math.exp(epsilon) * normal(-mu / 2 - epsilon / mu)

    low, high = 0.01, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) < delta else (low, middle)
    return math.sqrt(steps) / low


def heads(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    steps: int = 60,
    seeds: int = 3,
) -> dict[str, float]:
    """Test accuracy of a linear head without privacy, and under it at epsilon 8 (mean of `seeds`)."""
    from sklearn.linear_model import LogisticRegression

    open_head = LogisticRegression(max_iter=2000, C=0.1).fit(*train)
    x = torch.from_numpy(np.pad(train[0], ((0, 0), (0, 1)), constant_values=1.0)).float()
    x = x / x.norm(dim=1, keepdim=True)
    y = functional.one_hot(torch.from_numpy(train[1])).float()
    probes = torch.from_numpy(np.pad(test[0], ((0, 0), (0, 1)), constant_values=1.0)).float()
    clip, noise = 0.5, noise_for(EPSILON, 1 / (10 * len(x)), steps)
    found = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        head, velocity = torch.zeros(x.shape[1], y.shape[1]), torch.zeros(x.shape[1], y.shape[1])
        for _ in range(steps):
            errors = (x @ head).softmax(-1) - y
            factors = (clip / errors.norm(dim=1).clamp_min(1e-9)).clamp_max(1.0)
            total = x.T @ (errors * factors[:, None])
            total += torch.randn(total.shape, generator=generator) * noise * clip
            velocity = 0.9 * velocity + total / len(x)
            head -= 8.0 * velocity
        found.append(float(((probes @ head).argmax(1).numpy() == test[1]).mean()))
    return {"linear": float(open_head.score(*test)), "private linear": sum(found) / len(found)}


def transfer(base: Base, rows: Sequence[tuple[str, str]]) -> dict[str, float]:
    """How well (text, label) rows of labels new to the base are read: 30 % of them, by hash, test."""
    labels = sorted({label for _, label in rows})
    values = features(base, [text for text, _ in rows])
    answers = np.array([labels.index(label) for _, label in rows])
    test = np.array([sources.share("probe", text) < 0.3 for text, _ in rows])
    first = [base.tokenizer.encode(f" {label}").ids[0] for label in labels]
    scores = base.logits(torch.from_numpy(values[test]))
    # No public texts to standardise with here: mean and spread are those of the training rows.
    values = (values - values[~test].mean(0)) / (values[~test].std(0) + 1e-6)
    return {
        "rows": len(rows),
        "majority": float(np.bincount(answers[test]).max() / test.sum()),
        "untuned": float((scores[:, first].argmax(1).numpy() == answers[test]).mean()),
        "untuned free": float((torch.tensor(first)[answers[test]] == scores.argmax(1)).float().mean()),
        **heads((values[~test], answers[~test]), (values[test], answers[test])),
    }


def bank15(data: Path) -> list[tuple[str, str]]:
    """Fifteen intents of Banking77 under one-word labels."""
    with (data / "banking77/train.jsonl").open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return [(" ".join(row["text"].split()), BANK15[row["label"]]) for row in rows if row["label"] in BANK15]


def probe(folder: Path, data: Path) -> dict[str, float]:
    """Every figure for one model folder."""
    base, dice = Base(folder), random.Random(7)
    corpus = forms.build(data, seed=Settings.seed)
    found: dict[str, float] = {"parameters": sum(value.numel() for value in base.model.parameters())}
    for source in ("clinc150", "hwu64", "snips"):
        rows = [row for row in corpus.held_messages if row.source == source][:600]
        found[f"exact {source} ({len(rows)} rows)"] = exact(
            base, [forms.labelled(r.text, r.label) for r in rows]
        )
    sections = [forms.labelled(forms.excerpt(row, dice), row.section) for row in corpus.held_medical]
    found[f"exact medquad section ({len(sections)} rows)"] = exact(base, sections)
    every, label = held_loss(base, corpus.held[:700])
    found |= {"held-out loss": every, "held-out perplexity": math.exp(every), "held-out label loss": label}
    return found | {f"bank15 {name}": value for name, value in transfer(base, bank15(data)).items()}


def main() -> None:
    """Print one figure a line."""
    parser = argparse.ArgumentParser(prog="base_model.probe", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name, value in probe(chosen.model, chosen.data).items():
        print(f"{name:36} {value:.3f}" if isinstance(value, float) else f"{name:36} {value}")


if __name__ == "__main__":
    main()
