"""The endpoint's figures in Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COUNTERS = {
    "requests": "Requests that were let in.",
    "errors": "Requests that failed here (status 500 and above).",
    "refused": "Requests that were refused (status 400 to 499).",
    "prompt_tokens": "Tokens read.",
    "tokens": "Tokens written.",
    "restarts": "Engines started again after a failure.",
    "cache_hits": "Answers from the cache.",
    "cache_misses": "Answers that were not in the cache.",
    "engine_seconds": "Seconds that engines worked at whole answers.",
    "tokens_saved": "Tokens that the cache spared.",
    "seconds_saved": "Seconds of engine work that the cache spared.",
    "joules": "Energy used, measured or estimated.",
    "cost": "Its price.",
}
_GAUGES = {
    "active": "Open requests.",
    "queued": "Open requests without a first text.",
    "tokens_per_second": "Tokens written a second over the last minute.",
    # Not counters: they follow from the mean energy of a second of work, which moves.
    "joules_saved": "Energy that the cache spared, about.",
    "cost_saved": "Its price.",
    "rss_mb": "Memory of gateway and engines, MiB.",
}


class _Figures(Collector):
    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        facts = self._facts
        for name, text in _COUNTERS.items():
            if facts.get(name) is not None:
                yield CounterMetricFamily(f"cloister_{name}", text, value=facts[name])
        for name, text in _GAUGES.items():
            if facts.get(name) is not None:
                yield GaugeMetricFamily(f"cloister_{name}", text, value=facts[name])
        first = GaugeMetricFamily(
            "cloister_first_token_seconds", "Time to the first text, last 512 answers.", labels=["quantile"]
        )
        for quantile in ("p50", "p95"):
            value = facts.get(f"first_token_{quantile}_ms")
            if value is not None:
                first.add_metric([f"0.{quantile[1:]}"], value / 1000)
        yield first
        yield _labelled("cloister_answers", "Answers by model.", "model", facts.get("models", {}))
        yield _labelled("cloister_routed", "Requests by route taken.", "route", facts.get("routes", {}))


def page(facts: Mapping[str, Any]) -> bytes:
    """The body of GET /metrics for the endpoint's `facts`."""
    registry = CollectorRegistry()
    registry.register(_Figures(facts))
    return generate_latest(registry)


def _labelled(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
