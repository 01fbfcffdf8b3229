"""How a job ended, in words. Pure."""

from __future__ import annotations

from typing import Any

from tui.screens.story import Picture
from tui.steps import too_few
from tui.words import gate_word

_RESUME = "try: r goes on from what it had finished."


def end_text(job_id: str, kind: str, picture: Picture) -> tuple[str, str] | None:
    """Title and text of how the job ended; None while it runs."""
    end = picture.end or {}
    if picture.state == "failed":
        return "Failed", f"error: {end.get('message', '')}\ntry: {end.get('hint', '')}"
    if picture.state == "stopped":
        return "Stopped", f"Job {job_id} was stopped. What it had finished is kept.\n{_RESUME}"
    if picture.state == "died":
        return "Died", f"error: {picture.why or f'Job {job_id} died without a word.'}\n{_RESUME}"
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
    few = too_few(result["unit"], result.get("units", {})) if result["unit"] else ""
    lines = [f"dataset {result['name']}@{result['version']}{note}", f"records: {counts}; {unit}"]
    return [*lines, f"WARNING: {few}"] if few else lines


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
