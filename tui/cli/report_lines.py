"""The parts of an evaluation report as lines of a given width. Pure; for the screen and the command line.

A report is that of appliance/evaluate/report.py; `about` in it names the model that is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.cli.tables import wrapped
from tui.words import gate_word

Report = Mapping[str, Any]
_BAR = 10
_SHARES = (
    ("accuracy", "ci", "accuracy"),
    ("macro_f1", "macro_f1_ci", "F1 macro"),
    ("free_accuracy", "free_ci", "free text"),
)


def subject(report: Report) -> dict[str, Any]:
    """The row of the model that the report is looked at for, else of the last one."""
    rows: list[dict[str, Any]] = report["models"]
    return next((row for row in rows if row["name"] == report.get("about")), rows[-1])


def reference(report: Report) -> dict[str, Any] | None:
    """The row of what the model is compared with: the base, else for a file the one it was made from."""
    rows: list[dict[str, Any]] = report["models"]
    about = subject(report)
    found = next((row for row in rows if row["role"] == "base"), None)
    found = found or next((row for row in rows if row["name"] == about.get("parent")), None)
    return None if found is about else found


def data_words(report: Report) -> str:
    """What was measured on, in a few words."""
    data = report["dataset"]
    count, whole = data["rows"], data["rows_in_split"]
    rows = f"{count:,}" if count == whole else f"{count:,} of {whole:,}"
    return f"{data['title']}, {data['split']} split, {rows} records"


def quality_lines(report: Report) -> list[str]:
    """Base, model, the interval of the model's figure, and how far it moved."""
    about, base = subject(report), reference(report)
    lines = [f"{'':<10}{'base':>6} {'this':>6} {'95% CI':<11} {'change':>7}"]
    for key, interval, name in _SHARES:
        if about.get(key) is not None:
            lines.append(_row(name, key, interval, about, base, "{:.3f}"))
    lines.append(_row("perplexity", "perplexity", "perplexity_ci", about, base, "{:.2f}"))
    return lines


def _row(
    name: str, key: str, interval: str, about: Mapping[str, Any], base: Mapping[str, Any] | None, form: str
) -> str:
    value, before = about[key], base.get(key) if base else None
    ends = about.get(interval)
    reach = "-".join(_figure(end, form) for end in ends) if ends else ""
    change = f"{(value - before) / before:+.1%}" if before and value is not None else "-"
    old = "-" if before is None else _figure(before, form)
    new = "-" if value is None else _figure(value, form)
    return f"{name:<10}{old:>6} {new:>6} {reach:<11} {change:>7}"


def _figure(value: float, form: str) -> str:
    text = form.format(value)
    if text.startswith("0."):
        return text[1:]
    return text if len(text) <= 6 else f"{value:.0f}" if value < 1e5 else f"{value:.0e}"


def gate_of(report: Report) -> Mapping[str, Any] | None:
    """The verdict on the model that is looked at; None where no rule applies to it."""
    name = subject(report)["name"]
    return next((gate for gate in report["gates"] if gate["model"] == name), None)


def gate_title(report: Report) -> str:
    """PASS, FAIL or partial, in the box's title."""
    gate = gate_of(report)
    return "Gate  -" if gate is None else f"Gate  {gate_word(gate)}"


def gate_lines(report: Report, width: int) -> list[str]:
    """What was asked, what was found, and why it failed where it did."""
    gate = gate_of(report)
    if gate is None:
        return wrapped("No rule applies: it was not tuned here.", width=width)
    lines: list[str] = []
    for clause in gate["clauses"]:
        sign = "x" if clause["passed"] else " "
        lines += wrapped(f"{clause['need']}", f"[{sign}] ", "    ", width)
        lines += wrapped(f"got {clause['got']}", "    ", "    ", width)
    for note in gate.get("notes") or ():
        lines += wrapped(note, width=width)
    if not gate["passed"] and gate.get("rows_needed"):
        lines += wrapped(f"About {gate['rows_needed']:,} test records would decide.", width=width)
    return lines


def group_lines(report: Report, width: int) -> list[str]:
    """Accuracy by group; groups of few people are left out of the report."""
    groups = subject(report).get("groups") or []
    if not groups:
        return wrapped("No groups. Name them at the import: Groups in reports, or --fact COLUMN", width=width)
    names = [f"{one['fact'].replace('_', ' ')} {one['value']}" for one in groups]
    room = max(6, min(max(map(len, names)), width - 8 - _BAR - 2))
    return [
        f"{_cut(name, room):<{room}} {_figure(one['accuracy'], '{:.3f}'):>5} {_bar(one['accuracy'])}"
        for name, one in zip(names, groups, strict=True)
    ]


def precision_lines(report: Report, width: int) -> list[str]:
    """The same model in each precision: quality, size, speed; `<` is the smallest that passed."""
    rows = [row for row in report["models"] if row["role"] != "base"]
    passed = {gate["model"] for gate in report["gates"] if gate["passed"]}
    files = [row for row in rows if row["kind"] == "gguf" and row["name"] in passed and row.get("size")]
    best = min(files, key=lambda row: int(row["size"]))["name"] if files else None
    lines = []
    for row in rows:
        kind = row.get("type") or ("f32" if row["kind"] in ("adapter", "base") else row["kind"])
        value = row.get("accuracy")
        quality = _figure(row["perplexity"], "{:.2f}") if value is None else _figure(value, "{:.3f}")
        speed = row.get("tokens_per_second")
        each = "-" if not speed else f"{1000 / speed:.1f} ms/tok"
        line = f"{_cut(kind, 6):<6} {quality:>5} {_size(row.get('size')):>7} {each:>12}"
        lines.append(line[: width - 2] + (" <" if row["name"] == best else ""))
    return lines


def rule_lines(rule: Mapping[str, Any] | None, width: int) -> list[str]:
    """The gate's rules in plain words, with the limits that held for this report."""
    if rule is None:
        return wrapped(
            "This report came with a bundle: its rules are those of the site that made it.", width=width
        )
    level, chance = f"{rule['level']:.0%}", f"{rule['chance']:g}"
    told = (
        f"Better: at least +{rule['gain']:.0%} accuracy relative to the base, and the low end of its {level}"
        " interval counts. Without labels: as much less perplexity.",
        f"Not by luck: McNemar's test on the same records gives p <= {chance}.",
        f"Enough people: {rule['units']} test units or more.",
        f"No group left behind: no group loses {rule['group_loss'] * 100:g} points or more.",
        f"Shrunk files: at most {rule['quantised_loss'] * 100:g} points (or"
        f" +{rule['quantised_perplexity']:.0%} perplexity) behind the F16 file.",
        "Only all records of the test split can pass a model; a look at a part passes nothing.",
    )
    return [line for text in told for line in wrapped(text, "- ", "  ", width)]


def limit_lines(report: Report, width: int) -> list[str]:
    """What a reader must know before believing the figures."""
    return [line for text in report.get("limits") or () for line in wrapped(text, "- ", "  ", width)]


def _bar(share: float) -> str:
    filled = min(_BAR, max(0, round(share * _BAR)))
    return f"[{'#' * filled}{'.' * (_BAR - filled)}]"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."


def _size(size: float | None) -> str:
    if size is None:
        return "-"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.{1 if size < 1e8 else 0}f} MB"
