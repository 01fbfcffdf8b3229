from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import ConfigWrong
from appliance.security.amounts import read_end, read_rate, read_tokens, short

NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
NUMBERS = st.integers(1, 10**8)


@given(NUMBERS)
def test_a_rate_is_the_same_in_every_unit(number: int) -> None:
    assert read_rate(f"{number}/m") == read_rate(f" {number}/m ") == number
    assert read_rate(f"{number}/s") == number * 60
    for unit, minutes in (("h", 60), ("d", 1440)):
        if number < minutes:
            with pytest.raises(ConfigWrong):
                read_rate(f"{number}/{unit}")
        else:  # never more than was asked for, and less than one a minute less
            assert 0 <= number - read_rate(f"{number}/{unit}") * minutes < minutes


@given(NUMBERS)
def test_tokens_are_the_same_however_written(number: int) -> None:
    assert read_tokens(f"{number}/d") == read_tokens(str(number)) == number
    assert read_tokens(f"{number}k/d") == read_tokens(f"{number}000")
    assert read_tokens(f"{number}M") == read_tokens(f"{number}000k")


@given(MOMENTS, st.integers(1, 99_999), st.sampled_from("hdw"))
def test_a_span_ends_that_much_later(now: datetime, number: int, unit: str) -> None:
    name = {"h": "hours", "d": "days", "w": "weeks"}[unit]
    assert read_end(f"{number}{unit}", now) - now == timedelta(**{name: number})


@given(MOMENTS, MOMENTS, st.integers(-23, 23))
def test_a_moment_is_itself_in_every_zone_and_must_be_to_come(
    now: datetime, end: datetime, hours: int
) -> None:
    there = end.astimezone(timezone(timedelta(hours=hours)))
    for text in (end.isoformat(), there.isoformat(), end.replace(tzinfo=None).isoformat(" ")):
        if end > now:
            found = read_end(text, now)
            assert found == end and found.utcoffset() == timedelta(0)
        else:
            with pytest.raises(ConfigWrong, match="not in the future"):
                read_end(text, now)


def test_a_date_ends_as_it_begins() -> None:
    assert read_end("2030-06-02", NOW) == datetime(2030, 6, 2, tzinfo=UTC)
    with pytest.raises(ConfigWrong, match="not in the future"):
        read_end("2030-06-01", NOW)


@given(st.text(max_size=12))
def test_any_other_text_is_refused_in_two_lines(text: str) -> None:
    for read in (read_rate, read_tokens, lambda text: read_end(text, NOW)):
        try:
            assert read(text)
        except ConfigWrong as problem:
            assert problem.hint and "\n" not in problem.message


@pytest.mark.parametrize(
    "text", ["", "60/", "/m", "0", "0/m", "-1/m", "1/h", "1439/d", "6 0/m", "1.5/m", "٣/m", "1e3/m"]
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigWrong):
        read_rate(text)


@pytest.mark.parametrize("text", ["", "0", "0/d", "-5", "5/h", "1.5k", "5K", "999999999999M"])
def test_what_is_no_number_of_tokens(text: str) -> None:
    with pytest.raises(ConfigWrong):
        read_tokens(text)


@pytest.mark.parametrize(
    "text", ["", "0d", "90", "90m", "tomorrow", "2030-13-01", "99999w1", "9999-12-31T23:59-23:00"]
)
def test_what_is_no_end(text: str) -> None:
    with pytest.raises(ConfigWrong):
        read_end(text, NOW)


@given(st.integers(0, 10**12 - 1))
def test_short_numbers_fit_and_never_say_more(number: int) -> None:
    text = short(number)
    assert len(text) <= 4
    value = float(text.rstrip("kMG")) * {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1)
    assert value <= number <= value * 1.1 + 0.1


def test_short_numbers() -> None:
    assert [short(n) for n in (0, 999, 1000, 1250, 9999, 12_345, 200_000, 2_000_000)] == [
        "0",
        "999",
        "1k",
        "1.2k",
        "9.9k",
        "12k",
        "200k",
        "2M",
    ]
