"""Records dealt to simulated sites: all of them, each once, a patient at one site, as skewed as was asked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from appliance.core.errors import ConfigWrong
from appliance.data.records import Record
from federated.split import SPLITS, Split, dealt


def records(units: int, labels: int = 5, each: int = 3) -> list[Record]:
    return [
        Record(id=f"{unit}-{place}", text="t", answer=f"l{(unit + (place == 2)) % labels}", unit=f"u{unit}")
        for unit in range(units)
        for place in range(each)
    ]


def skew(parts: list[list[Record]]) -> float:
    """Mean share of a site's most common label."""
    counted = [Counter(record.answer for record in part) for part in parts]
    return float(np.mean([max(one.values()) / sum(one.values()) for one in counted]))


@given(
    how=some.sampled_from(SPLITS), units=some.integers(7, 60), alpha=some.sampled_from([1e-3, 0.1, 1, 100])
)
def test_every_record_is_at_one_site_and_a_patient_too(how: Split, units: int, alpha: float) -> None:
    held = records(units)
    parts = dealt(held, 7, how, alpha=alpha, seed=3)
    assert sorted(one.id for part in parts for one in part) == sorted(one.id for one in held)
    owners = [{one.unit for one in part} for part in parts]
    assert all(owners) and len(set.union(*owners)) == sum(map(len, owners)) == units
    assert parts == dealt(held, 7, how, alpha=alpha, seed=3)
    assert parts != dealt(held, 7, how, alpha=alpha, seed=4)


def test_label_and_dirichlet_skew_labels_and_patients_skews_sizes() -> None:
    held = records(1000)
    even = dealt(held, 10, "iid", alpha=1, seed=0)
    assert {len(part) for part in even} == {300}
    assert skew(even) < 0.3
    assert skew(dealt(held, 10, "label", alpha=1, seed=0)) > 0.4
    rough, mild = (skew(dealt(held, 10, "dirichlet", alpha=alpha, seed=0)) for alpha in (0.1, 100))
    assert mild < 0.3 < 0.45 < rough
    sizes = [len(part) for part in dealt(held, 10, "patients", alpha=0.5, seed=0)]
    assert max(sizes) > 5 * min(sizes)
    assert skew([part for part in dealt(held, 10, "patients", alpha=0.5, seed=0) if len(part) > 60]) < 0.4


def test_records_without_a_unit_are_units_of_their_own() -> None:
    held = [Record(id=str(number), text="t", answer="a") for number in range(10)]
    assert [len(part) for part in dealt(held, 5, "iid", alpha=1, seed=0)] == [2] * 5


@pytest.mark.parametrize(
    ("sites", "how", "alpha"), [(11, "iid", 1), (0, "iid", 1), (2, "odd", 1), (2, "dirichlet", 0)]
)
def test_what_cannot_be_dealt_is_refused(sites: int, how: Split, alpha: float) -> None:
    with pytest.raises(ConfigWrong):
        dealt(records(10), sites, how, alpha=alpha, seed=0)
