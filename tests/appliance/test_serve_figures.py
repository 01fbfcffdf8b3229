"""What an endpoint says of itself: counts, times, energy, and Prometheus' page of them."""

from __future__ import annotations

import base64
import struct
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import serve_support as support
from prometheus_client.parser import text_string_to_metric_families

from appliance.serve import metrics
from appliance.serve.embeddings import embedding_body, read_embedding
from appliance.serve.energy import Meter, cpu_seconds
from appliance.serve.refusals import Refused
from appliance.serve.stats import Stats
from tui.cli.endpoint_lines import endpoint_lines


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


def test_what_the_cache_spares_is_the_work_that_was_not_done(tmp_path: Path) -> None:
    (tmp_path / "max_energy_range_uj").write_text("1000000000\n")
    counter = tmp_path / "energy_uj"
    counter.write_text("0\n")
    meter = Meter(rapl=tmp_path, price=3.6)
    for joules, worked in ((100, 0.0), (140, 2.0), (240, 2.0)):  # the first and the last span were idle
        counter.write_text(f"{joules * 1_000_000}\n")
        meter.watch(worked, open_requests=0)
    facts = meter.facts(3, worked=2.0, saved=0.5)
    assert facts["joules"] == 240 and facts["joules_saved"] == 10
    assert facts["cost_saved"] == pytest.approx(10 / 3.6e6 * 3.6)
    counter.write_text("250000000\n")
    meter.watch(2.0, open_requests=1)  # an answer that is not at its end is work too
    assert meter.facts(3, worked=2.0, saved=0.5)["joules_saved"] == 12.5
    assert not {"joules_saved", "cost_saved"} & meter.facts(3).keys()
    estimated = Meter(rapl=tmp_path / "none", watts=20.0)
    used = cpu_seconds()
    while cpu_seconds() < used + 0.1:
        time.perf_counter()
    facts = estimated.facts(1, worked=4.0, saved=1.0)
    assert facts["joules_saved"] == pytest.approx(facts["joules"] / 4, abs=0.3) and "cost_saved" not in facts


@pytest.mark.parametrize("engine", ["native", "in-process"])
def test_an_endpoint_tells_what_its_cache_spared(tmp_path: Path, engine: str) -> None:
    home = support.new_home(tmp_path, labels=False)
    spec = {"engine": engine, "threads": 1, "watts_per_core": 100.0, "price_per_kwh": 1e6}
    with support.endpoint(home, **spec) as (_, url, key):
        head = {"Authorization": f"Bearer {key}"}

        def ask() -> float:
            messages = [{"role": "user", "content": "cancel"}]
            body = {"model": support.NAME, "messages": messages, **support.ENDLESS, "max_tokens": 200}
            began = time.monotonic()
            assert httpx.post(f"{url}/v1/chat/completions", json=body, headers=head).status_code == 200
            return time.monotonic() - began

        def figures() -> dict[str, float]:
            page = httpx.get(f"{url}/metrics", headers=head).text
            families = text_string_to_metric_families(page)
            return {sample.name: sample.value for family in families for sample in family.samples}

        took = ask()
        first = figures()
        assert 0 < first["cloister_engine_seconds_total"] <= took
        assert first["cloister_seconds_saved_total"] == first["cloister_joules_saved"] == 0
        ask()
        ask()
        found = figures()
        assert found["cloister_engine_seconds_total"] == first["cloister_engine_seconds_total"]
        saved = found["cloister_seconds_saved_total"]
        assert saved == pytest.approx(2 * first["cloister_engine_seconds_total"], abs=0.005)
        assert found["cloister_joules_saved"] > 0 and found["cloister_cost_saved"] > 0
        (line,) = [line for line in endpoint_lines(_told(found)) if "spared" in line]
        assert "engine time" in line and " J, which cost " in line


def _told(found: dict[str, float]) -> dict[str, Any]:
    """Of Prometheus' page what `serve status` says in its line."""
    known = {name.removeprefix("cloister_").removesuffix("_total"): value for name, value in found.items()}
    counts = {"requests", "active", "errors", "restarts", "cache_hits", "cache_misses", "tokens_saved"}
    whole = {name: int(known[name]) for name in counts}
    return known | whole | {"url": "u", "job": "1", "energy": "estimated", "cost_per_query": None}


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
