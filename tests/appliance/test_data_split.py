from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.core.errors import DataRejected
from appliance.data.clean import clean, label_counts, rare_labels
from appliance.data.figures import figures, quantiles
from appliance.data.records import Record
from appliance.data.split import own_unit, split


def record(number: int, unit: str | None = None, group: str | None = None, text: str = "") -> Record:
    return Record(id=f"{number:07d}", text=text or f"text {number}", answer="x", unit=unit, group=group)


owners = st.one_of(st.none(), st.integers(0, 12).map(str))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(owners, owners), min_size=1, max_size=60), st.integers(0, 5))
def test_no_unit_and_no_group_stands_in_two_splits(pairs, seed):
    records = [record(number, unit, group) for number, (unit, group) in enumerate(pairs)]
    try:
        parts = split(records, seed)
    except DataRejected:
        return
    kept = {r.id for part in parts.values() for r in part}
    assert sum(len(part) for part in parts.values()) == len(kept)
    assert all(one.group is not None for one in records if one.id not in kept)
    assert {one.unit for one in records if one.unit} == {r.unit for r in records if r.id in kept and r.unit}
    for key in ("unit", "group"):
        places = defaultdict(set)
        for name, part in parts.items():
            for one in part:
                places[getattr(one, key)].add(name)
        places.pop(None, None)
        assert all(len(names) == 1 for names in places.values())


def test_same_seed_same_split_other_seed_other_split():
    records = [record(n, unit=str(n // 3)) for n in range(900)]
    assert split(records, 1) == split(list(records), 1)
    assert split(records, 1) != split(records, 2)


def test_shares_are_80_10_10():
    sizes = {name: len(part) for name, part in split([record(n) for n in range(5000)], 0).items()}
    assert sizes["train"] == pytest.approx(4000, abs=120)
    assert sizes["val"] == pytest.approx(500, abs=90)
    assert sizes["test"] == pytest.approx(500, abs=90)


def test_one_patient_more_moves_nobody_else():
    records = [record(n, unit=f"P{n // 3}") for n in range(900)]
    before = split(records, 0)
    after = split([record(9999, unit="A new one"), *records], 0)
    for name, part in before.items():
        assert [r for r in after[name] if r.unit != "A new one"] == part


def test_one_patient_in_two_groups_moves_nobody_else():
    records = [record(n, unit=f"P{n // 3}", group=f"g{n // 18}") for n in range(180)]
    for seed in range(8):
        before = split(records, seed)
        bridge = [record(900, unit="bridge", group="g3"), record(901, unit="bridge", group="g5")]
        after = split([*bridge, *records], seed)
        assert {k: [r for r in part if r.unit != "bridge"] for k, part in after.items()} == before


def test_a_patient_named_like_a_row_number_stays_in_one_split():
    records = [record(n, unit=f"{n // 4:07d}") for n in range(400)]
    parts = split(records, 0)
    units = [{r.unit for r in part} for part in parts.values()]
    assert sum(map(len, units)) == len(set.union(*units)) == 100


def test_one_text_never_stands_in_two_splits_when_the_record_is_the_unit():
    records = [record(n, unit=own_unit(f"{n:07d}"), text=f"Same  {n % 40}") for n in range(400)]
    parts = split(records, 0)
    texts = [{r.text for r in part} for part in parts.values()]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 40


@pytest.mark.parametrize("count", [3, 4, 6, 10])
def test_few_units_still_fill_three_splits(count):
    for seed in range(20):
        parts = split([record(n, unit=str(n % count)) for n in range(50)], seed)
        assert all(parts.values())


def test_too_few_units_are_refused():
    with pytest.raises(DataRejected, match="2 separate units"):
        split([record(n, unit=str(n % 2)) for n in range(50)], 0)
    with pytest.raises(DataRejected):
        split([record(n, unit=str(n), group="one") for n in range(50)], 0)


def said(text: str, answer: str, unit: str | None) -> Record:
    return Record(id="1", text=text, answer=answer, unit=unit)


def test_clean_counts_each_reason():
    records = [
        said("Hello there", "a", "p"),
        said("hello   THERE ", "A", "p"),
        said("Hello there", "a", "q"),
        said("Hello there", "b", "p"),
        said(" \n", "a", "p"),
        said("x", " ", "p"),
        said("x", "a", None),
        said("y" * 21, "a", "p"),
    ]
    result = clean(iter(records), task="label", has_unit=True, max_characters=20)
    assert result.kept == [records[0], records[2], records[3]]
    assert result.dropped == {
        "empty text": 1,
        "empty answer": 1,
        "no unit": 1,
        "too long": 1,
        "duplicate": 1,
    }


def test_duplicates_across_units_fall_only_where_no_patient_is_declared():
    twins = [said("same", "a", None), said("SAME", "a ", None)]
    assert clean(twins, task="label", has_unit=False, max_characters=20).dropped["duplicate"] == 1


def test_removing_one_patient_changes_nobody_else_in_the_cleaned_data():
    records = [said(f"text {n % 5}", "a", f"P{n % 4}") for n in range(40)]
    whole = clean(records, task="label", has_unit=True, max_characters=20).kept
    for gone in ("P0", "P1", "P2", "P3"):
        rest = [r for r in records if r.unit != gone]
        kept = clean(rest, task="label", has_unit=True, max_characters=20).kept
        assert kept == [r for r in whole if r.unit != gone]


def test_labels_are_trimmed_and_counted_and_free_text_is_refused():
    kept = clean(
        [said(f"t{n}", " a " if n % 3 else "b", "p") for n in range(9)],
        task="label",
        has_unit=True,
        max_characters=20,
    ).kept
    counts = label_counts(kept)
    assert counts == {"a": 6, "b": 3}
    assert rare_labels(counts, 5) == {"b": 3}
    with pytest.raises(DataRejected, match="1 label"):
        label_counts(kept[1:3])
    with pytest.raises(DataRejected, match="free text") as caught:
        label_counts([said("q", f"Ada Lovelace {n}", "p") for n in range(9)])
    assert "Lovelace" not in caught.value.message


def test_figures_count_records_units_and_lengths():
    parts = {"train": [record(n, unit=str(n // 4), text="a b c") for n in range(10)], "val": [record(99)]}
    result = figures(parts)
    assert (result["records"], result["units"]) == (11, 3)
    assert result["records_per_unit"] == {"min": 2, "median": 4, "max": 4}
    assert result["splits"] == {"train": {"records": 10, "units": 3}, "val": {"records": 1, "units": 0}}
    assert quantiles(list(range(1, 101))) == {"p10": 10, "p50": 50, "p90": 90, "p99": 99, "p100": 100}
    assert Counter(quantiles([7]).values()) == {7: 5}
