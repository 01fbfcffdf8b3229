"""The figures of a running endpoint as lines. Pure."""

from __future__ import annotations

from typing import Any


def endpoint_lines(one: dict[str, Any]) -> list[str]:
    """What `cloister serve status` says of one endpoint; its keys are those of a serve job's progress."""
    engines = one.get("engines") or {}
    lines = [f"{one['url']}  job {one['job']}"]
    asleep = [name for name in one.get("names") or [] if name not in engines]
    for name, facts in engines.items():
        count = facts.get("threads")
        where = f"GPU: {facts['gpu']}" if facts.get("gpu") else f"CPU, {_many(count, 'thread')}"
        state = "asleep" if facts.get("asleep") else _many(facts.get("slots"), "slot")
        state = f"vectors of {facts['width']}" if "width" in facts else state
        lines.append(f"  {name}: {facts['engine']}, {where}, {state}, {facts.get('context')} tokens")
    if asleep:
        lines.append(f"  not in memory: {', '.join(asleep)}")
    lines.append(
        f"  requests {one['requests']:,}   open {one['active']:,}   waiting {one.get('queued') or 0:,}"
        f"   refused {one.get('refused') or 0:,}   failed {one['errors']:,}   restarts {one['restarts']:,}"
    )
    p50, p95 = one.get("first_token_p50_ms"), one.get("first_token_p95_ms")
    first = "-" if p50 is None else f"{p50:,.0f} ms (median), {p95:,.0f} ms (95 %)"
    lines.append(f"  {one['tokens_per_second']:,.1f} tokens/s in the last minute   first token {first}")
    if one.get("cache_hits") is not None:
        asked = one["cache_hits"] + one["cache_misses"]
        share = one["cache_hits"] / asked if asked else 0.0
        near = f", {one['cache_near_hits']:,} in other words" if one.get("cache_near_hits") else ""
        lines.append(f"  cache {one['cache_hits']:,} of {asked:,} ({share:.0%}{near})")
        lines.append(f"  the cache spared {_spared(one)}")
    if one.get("documents"):
        lines.append(f"  documents are searched by {one['documents']}; they are not protected by DP")
    lines += [f"  {route}: {count:,}" for route, count in (one.get("routes") or {}).items()]
    energy = f"  energy {one['joules']:,.0f} J ({one['energy']})"
    if one.get("joules_per_query") is not None:
        energy += f", {one['joules_per_query']:,.2f} J a query"
    lines.append(energy)
    if one.get("cost_per_query") is not None:
        lines.append(f"  cost {one['cost']:.6f} in all, {one['cost_per_query']:.8f} a query")
    lines.append(f"  memory {one['rss_mb']:,.0f} MiB, gateway and engines")
    return lines


def _spared(one: dict[str, Any]) -> str:
    """What the cache spared: tokens and engine time; energy and money where they are known."""
    told = [f"{one['tokens_saved']:,} tokens"]
    if one.get("seconds_saved") is not None:
        told.append(f"{one['seconds_saved']:,.1f} s of engine time")
    if one.get("joules_saved") is not None:
        told.append(f"about {one['joules_saved']:,.0f} J")
    if one.get("cost_saved") is not None:
        told.append(f"which cost {one['cost_saved']:.6f}")
    return ", ".join(told)


def _many(count: int | None, noun: str) -> str:
    return f"{count or 0} {noun}" if count == 1 else f"{count or 0} {noun}s"
