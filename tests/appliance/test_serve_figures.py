"""What an endpoint says of itself: counts, times, energy, and Prometheus' page of them."""

from __future__ import annotations

import base64
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.serve import metrics
from appliance.serve.embeddings import embedding_body, read_embedding
from appliance.serve.energy import Meter, cpu_seconds
from appliance.serve.refusals import Refused
from appliance.serve.stats import Stats


def test_rates_look_back_a_minute() -> None:
    now = [100.0]
    stats = Stats(clock=lambda: now[0])
    now[0] += 10
    stats.answered("a", 5, 100)
    assert stats.rate() == 10.0
    now[0] += 55
    stats.answered("b", 5, 20)
    assert stats.rate() == pytest.approx(120 / 60)
    now[0] += 10
    assert stats.rate() == pytest.approx(20 / 60)
    assert stats.facts()["models"] == {"a": 1, "b": 1} and stats.facts()["tokens"] == 120


def test_first_token_times_are_quantiles_of_what_was_seen() -> None:
    stats = Stats()
    assert stats.facts()["first_token_p50_ms"] is None
    stats.firsts.extend(milliseconds / 1000 for milliseconds in range(1, 101))
    assert stats.facts()["first_token_p50_ms"] == 51 and stats.facts()["first_token_p95_ms"] == 96


def test_an_open_request_counts_until_it_ends() -> None:
    stats = Stats()
    with pytest.raises(RuntimeError), stats.counted():
        assert stats.facts()["active"] == 1
        raise RuntimeError
    assert (stats.active, stats.requests) == (0, 1)


def test_a_request_waits_until_its_first_text() -> None:
    now = [0.0]
    stats = Stats(clock=lambda: now[0])
    with stats.waiting() as first:
        now[0] = 0.5
        assert stats.queued == 1
        first()
        now[0] = 2.0
        first()
        assert stats.queued == 0
    with pytest.raises(RuntimeError), stats.waiting():
        raise RuntimeError
    assert stats.queued == 0 and list(stats.firsts) == [0.5]


def test_energy_is_measured_where_the_processor_tells(tmp_path: Path) -> None:
    (tmp_path / "max_energy_range_uj").write_text("1000000000\n")
    counter = tmp_path / "energy_uj"
    counter.write_text("999000000\n")
    meter = Meter(rapl=tmp_path, price=0.36)
    counter.write_text("999900000\n")
    assert meter.joules() == pytest.approx(0.9)
    counter.write_text("100000\n")  # it wrapped
    assert meter.joules() == pytest.approx(1.1)
    facts = meter.facts(11)
    assert facts["energy"] == "measured" and facts["joules_per_query"] == 0.1
    assert facts["cost"] == pytest.approx(1.1 / 3.6e6 * 0.36)


def test_energy_is_else_estimated_from_cpu_time(tmp_path: Path) -> None:
    meter = Meter(rapl=tmp_path / "none", watts=20.0)
    used = cpu_seconds()
    while cpu_seconds() < used + 0.1:
        time.perf_counter()
    assert 1.9 <= meter.joules() <= 20.0
    assert meter.facts(0)["energy"] == "estimated at 20 W a core" and "cost" not in meter.facts(0)


def test_prometheus_reads_the_page() -> None:
    stats = Stats()
    stats.answered('odd "name"\n', 3, 7)
    stats.firsts.append(0.25)
    page = metrics.page(stats.facts() | {"errors": 2, "joules": 1.5}).decode()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert found[("cloister_tokens_total",)] == 7 and found[("cloister_errors_total",)] == 2
    assert found[("cloister_answers_total", 'odd "name"\n')] == 1
    assert found[("cloister_first_token_seconds", "0.95")] == 0.25


def test_embedding_requests_are_checked_and_answered() -> None:
    ask = read_embedding({"model": "m", "input": ["e\u0301", "b"], "encoding_format": "base64"})
    assert ask.texts == ("\u00e9", "b")
    body = embedding_body(ask, [[0.6, 0.8], [1.0, 0.0]], 4)
    packed = base64.b64decode(body["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == pytest.approx((0.6, 0.8))
    bad: list[Any] = [[], {"model": "m"}, {"input": "x"}, {"model": "m", "input": [""]}]
    bad += [
        {"model": "m", "input": ["x"] * 65},
        {"model": "m", "input": [[1, 2]]},
        {"model": "m", "input": 3},
    ]
    bad += [{"model": "m", "input": "x", "dimensions": 3}, {"model": "m", "input": "x" * 200_000}]
    bad += [{"model": "m", "input": "x", "encoding_format": "int8"}]
    for each in bad:
        with pytest.raises(Refused):
            read_embedding(each)
