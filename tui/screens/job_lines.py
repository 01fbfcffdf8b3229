"""The text of a job's panes. Pure."""

from __future__ import annotations

import textwrap
from typing import Any

from appliance.core.events import Event
from tui.cli.lines import plan_lines
from tui.screens.site import LIVE
from tui.screens.story import Picture, length, seconds
from tui.widgets.gauge import gauge
from tui.words import gate_word

_FIGURES = (
    ("loss", "loss {:.3f}"),
    ("validation_loss", "validation loss {:.3f}"),
    ("epsilon", "epsilon so far at most {:.2f}"),
    ("clipped", "clipped {:.0%}"),
    ("tokens_per_second", "{:,.0f} tokens/s"),
    ("records", "{:,.0f} records"),
    ("kept", "{:,.0f} kept"),
    ("requests", "{:,.0f} requests"),
    ("errors", "{:,.0f} errors"),
    ("active", "{:,.0f} now"),
    ("first_token_p50_ms", "first token {:,.0f} ms (median)"),
)


def run_text(picture: Picture, now: float, width: int) -> str:
    """State, stage with gauge and time left, figures; two figures share a line where both fit."""
    lines = [f"state  {picture.state}{_since(picture, now)}"]
    if picture.stage == "serving":
        pass  # it has no end to be on the way to
    elif picture.stage:
        share = picture.share or 0.0
        left = f"  left {length(picture.left)}" if picture.left is not None and picture.state in LIVE else ""
        count = f"  {picture.done:,.0f} of {picture.total:,.0f}" if picture.total > 1 else ""
        lines += [
            f"stage  {picture.stage}{count}",
            f"{gauge(share, max(4, min(20, width - 20)))} {share:>4.0%}{left}",
        ]
    elif picture.state in LIVE:
        lines.append("stage  starting ...")
    if picture.model:
        lines.append(f"model  {picture.model}")
    if picture.ready:
        lines += [f"at     {picture.ready.get('url', '')}", f"engine {picture.ready.get('engine', '')}"]
    told = [form.format(picture.figures[key]) for key, form in _FIGURES if key in picture.figures]
    line = ""
    for figure in told:
        if line and len(line) + len(figure) + 3 > width:
            lines.append(line)
            line = ""
        line = f"{line}   {figure}" if line else figure
    return "\n".join([*lines, *([line] if line else [])])


def _since(picture: Picture, now: float) -> str:
    if not picture.started:
        return ""
    end = now if picture.state in LIVE else seconds(picture.newest)
    return f"  {'for' if picture.state in LIVE else 'after'} {length(end - seconds(picture.started))}"


def plan_text(plan: Event | None, width: int) -> str:
    """The privacy plan in plain words, wrapped with a hanging indent."""
    if plan is None:
        return ""
    return "\n".join(
        part
        for line in plan_lines(plan)
        for part in textwrap.wrap(line, max(20, width), subsequent_indent="  ", break_on_hyphens=False)
    )


def end_text(job_id: str, kind: str, picture: Picture) -> tuple[str, str] | None:
    """Title and text of how the job ended; None while it runs."""
    end = picture.end or {}
    if picture.state == "failed":
        return "Failed", f"error: {end.get('message', '')}\ntry: {end.get('hint', '')}"
    if picture.state == "stopped":
        return "Stopped", f"error: Job {job_id} was stopped.\ntry: r resumes it from its last checkpoint."
    if picture.state == "died":
        return "Died", (
            f"error: Job {job_id} died without a word (killed, or the machine went down)."
            "\ntry: r resumes it from its last checkpoint."
        )
    if picture.state == "done":
        return "Done", "\n".join(result_lines(kind, end.get("result")))
    return None


def result_lines(kind: str, result: Any) -> list[str]:
    """What a job made, in words; a result of an unknown shape gives only the word."""
    try:
        return _RESULTS[kind](result) or ["done"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return ["done"]


def _imported(result: dict[str, Any]) -> list[str]:
    counts = ", ".join(f"{count:,} {split}" for split, count in result["counts"].items())
    unit = f"privacy unit: {result['unit']}" if result["unit"] else "no privacy unit declared"
    note = " (there already)" if result.get("reused") else ""
    return [f"dataset {result['name']}@{result['version']}{note}", f"records: {counts}; {unit}"]


def _trained(result: dict[str, Any]) -> list[str]:
    privacy = result["privacy"]
    first = f"adapter {result['name']}, {result['steps']} steps on {result['base']}"
    if privacy is None:
        return [first, "No differential privacy: it may repeat what it was trained on."]
    return [
        first,
        f"epsilon {privacy['epsilon']:.2f}, delta {privacy['delta']:.2g} for each {privacy['unit']}"
        f" (dataset so far: {privacy['epsilon_dataset']:.2f} of {privacy['epsilon_limit']:g})",
    ]


def _searched(result: dict[str, Any]) -> list[str]:
    best = result["best"]
    tried = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in best["settings"].items()
    )
    first = f"{len(result['tried'])} trials; best: trial {best['number']} ({tried})"
    return [f"{first}, validation loss {best['loss']:.4f}", *(_trained(result) if result["name"] else [])]


def _evaluated(result: dict[str, Any]) -> list[str]:
    scores = [
        f"{row['name']}  accuracy {row['accuracy']:.3f}"
        + (f" ({row['ci'][0]:.3f}-{row['ci'][1]:.3f})" if row.get("ci") else "")
        for row in result["models"]
        if row.get("accuracy") is not None
    ]
    gates = [f"gate {gate_word(gate)}  {gate['model']}" for gate in result["gates"]]
    return [*scores, *gates, *([f"report {result['html']}"] if result.get("html") else [])]


def _quantised(result: dict[str, Any]) -> list[str]:
    return [
        f"{file['type']:<7} {file['name']}"
        + (f"  {file['size'] / 1e6:.1f} MB" if file.get("size") else "")
        + "  proof PASS"
        for file in result["files"]
    ]


_RESULTS: dict[str, Any] = {
    "import": _imported,
    "train": _trained,
    "search": _searched,
    "evaluate": _evaluated,
    "quantize": _quantised,
    "serve": lambda result: ["The endpoint was closed."],
}
