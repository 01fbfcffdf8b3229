"""The report as one HTML file that needs nothing else: styles and plots are inside, no scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from appliance.evaluate import plots

_MOST_CELLS = 25
_MOST_PAIRS = 15


def render_page(report: dict[str, Any]) -> str:
    """The page of a report (see report.py)."""
    world = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    world.filters |= {"percent": _percent, "range": _range, "size": plots.megabytes, "signed": _signed}
    rows = report["models"]
    base = next((row for row in rows if row["role"] == "base"), None)
    shown = _subject(report)
    page: str = world.get_template("report.html").render(
        report=report,
        data=report["dataset"],
        rows=rows,
        base=base,
        shown=shown,
        clauses=_clauses(report["gates"]),
        cells={(gate["model"], one["name"]): one for gate in report["gates"] for one in gate["clauses"]},
        statements=_statements(rows),
        plots={name: Markup(drawing) for name, drawing in _plots(report, base, shown).items()},  # noqa: S704
        confusions=_worst_confusions(report["dataset"]["labels"], shown["confusion"]),
    )
    return page


def _clauses(gates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every clause that some gate has, once, in order."""
    found: dict[str, dict[str, Any]] = {}
    for gate in gates:
        for clause in gate["clauses"]:
            found.setdefault(clause["name"], clause)
    return list(found.values())


def _statements(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Privacy statements and the models they hold for."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(privacy_statement(row), []).append(row["name"])
    return found


def privacy_statement(row: dict[str, Any]) -> str:
    """One sentence on whose privacy a model keeps, and how well."""
    privacy = row["privacy"]
    if privacy is None:
        return "Not tuned here: no record of this site went into it."
    if not privacy:
        return "Tuned without differential privacy: it may repeat records that it was tuned on."
    unit = privacy.get("unit") or "record"
    spent = privacy.get("epsilon_dataset")
    return (
        f"Differentially private: epsilon {privacy['epsilon']:.2f} at delta {privacy['delta']:.1e} for each"
        f" {unit}, with all of its records"
        + (f"; the dataset has spent {spent:.2f} in all" if spent is not None else "")
        + "."
    )


def _subject(report: dict[str, Any]) -> dict[str, Any]:
    """The row that plots of one model show: the first judged one, else the last."""
    judged = [gate["model"] for gate in report["gates"]]
    rows: list[dict[str, Any]] = report["models"]
    return next((row for row in rows if row["name"] in judged), rows[-1])


def _plots(report: dict[str, Any], base: dict[str, Any] | None, shown: dict[str, Any]) -> dict[str, str]:
    rows, labelled = report["models"], report["dataset"]["task"] == "label"
    field, ci, name = (
        ("accuracy", "ci", "Accuracy") if labelled else ("perplexity", "perplexity_ci", "Perplexity")
    )
    drawn = {
        "quality": plots.accuracy_bars(rows, name, field, ci),
        "size": plots.size_plot(rows, name, field) if len(rows) > 1 else "",
        "loss": plots.curve_plot(report["training"], "loss", "Loss"),
        "epsilon": plots.curve_plot(report["training"], "epsilon", "Epsilon"),
        "recall": "",
        "confusion": "",
    }
    if labelled:
        drawn["recall"] = plots.recall_bars(base if base is not shown else None, shown)
        if len(report["dataset"]["labels"]) <= _MOST_CELLS:
            drawn["confusion"] = plots.confusion_plot(report["dataset"]["labels"], shown["confusion"])
    return drawn


def _worst_confusions(labels: list[str], counts: list[list[int]]) -> list[tuple[str, str, int]]:
    """The most frequent mistakes: true label, answer, records."""
    names = [*labels, "no label"]
    found = [
        (labels[true], names[given], number)
        for true, row in enumerate(counts)
        for given, number in enumerate(row)
        if number and given != true
    ]
    return sorted(found, key=lambda one: (-one[2], one[0], one[1]))[:_MOST_PAIRS]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _signed(share: float | None) -> str:
    return "from none" if share is None else f"{share * 100:+.1f}"


def _range(ends: list[float] | None, form: str = "percent") -> str:
    return "" if ends is None else plots.span(ends[0], ends[1], "accuracy" if form == "percent" else form)
