from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from appliance.core.errors import ConfigWrong
from appliance.evaluate.metrics import NONE, confusion, label_metrics, macro_f1, perplexity, rates


@pytest.mark.parametrize("seed", range(8))
def test_label_figures_equal_those_of_sklearn(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Few rows and many classes: some labels are never predicted, some never true, some neither.
    gold, predicted = random.integers(0, 9, 25), random.integers(0, 9, 25)
    counts = confusion(gold, predicted, 9)
    found = label_metrics(counts)
    macro = precision_recall_fscore_support(gold, predicted, average="macro", zero_division=0)
    each = precision_recall_fscore_support(gold, predicted, labels=range(9), zero_division=0)
    assert found.accuracy == pytest.approx(accuracy_score(gold, predicted))
    assert (found.precision, found.recall, found.f1) == pytest.approx(macro[:3])
    assert found.per_label_precision == pytest.approx(each[0])
    assert found.per_label_recall == pytest.approx(each[1])
    assert found.per_label_f1 == pytest.approx(each[2])
    assert found.rows == tuple(each[3])
    assert (counts[:, :9] == confusion_matrix(gold, predicted, labels=range(9))).all()


def test_a_row_without_a_label_is_a_miss_of_its_answer_and_nobodys_find() -> None:
    gold, predicted = np.array([0, 0, 1]), np.array([0, NONE, 1])
    counts = confusion(gold, predicted, 2)
    found = label_metrics(counts)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.per_label_recall == (0.5, 1.0)
    assert found.per_label_precision == (1.0, 1.0)


def test_macro_f1_over_draws_equals_the_single_figure() -> None:
    random = np.random.default_rng(3)
    tables = [confusion(random.integers(0, 5, 12), random.integers(0, 5, 12), 5) for _ in range(6)]
    right = np.stack([np.diag(table) for table in tables])
    given = np.stack([table[:, :-1].sum(0) for table in tables])
    true = np.stack([table.sum(1) for table in tables])
    assert macro_f1(right, given, true) == pytest.approx([label_metrics(table).f1 for table in tables])
    assert rates(right, given, true)[0].shape == (6, 5)


def test_perplexity_of_a_uniform_model_is_its_vocabulary() -> None:
    assert perplexity(30 * math.log(4096), 30) == pytest.approx(4096)


@pytest.mark.parametrize(
    ("gold", "predicted"), [([], []), ([0, 1], [0]), ([0, 2], [0, 0]), ([0], [2]), ([-1], [0])]
)
def test_refuses_what_cannot_be_counted(gold: list[int], predicted: list[int]) -> None:
    with pytest.raises(ConfigWrong):
        confusion(np.array(gold, np.int64), np.array(predicted, np.int64), 2)
    with pytest.raises(ConfigWrong):
        perplexity(1.0, 0)
