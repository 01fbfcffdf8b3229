"""Privacy in lines of a given width: budget, charges, attack tests. Pure; for screens and commands.

A row is one of Session.budgets, charges are those of session_privacy.charges, an audit is the report of
appliance/ops/privacy_audit.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tui.cli.tables import table_lines, wrapped

LOW = 0.8  # of a budget
_LEAST = 0.005  # less than that is shown as nothing
COMPOSED = (
    "The epsilon of several runs is composed, not added: it follows from the noise, rate and steps of all of"
    " them together, and is less than the sum of what each would have alone."
)
_COLUMNS = ("job", "steps", "noise multiplier", "rate", "when", "epsilon after")
_WORST = ("FAIL", "INCONCLUSIVE", "PASS")


def state_word(spent: float, limit: float) -> str:
    """What is left of a budget, in a word."""
    return "SPENT" if limit - spent < _LEAST else "LOW" if spent >= LOW * limit else "OK"


def charge_lines(charges: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """A table: what each run was charged, and epsilon of all up to it."""
    rows = [
        (
            one["job"],
            one["steps"],
            f"{one['noise_multiplier']:.3f}",
            f"{one['sample_rate']:g}",
            one["first"][:16],
            f"{one['epsilon_after']:.2f}",
        )
        for one in charges
    ]
    return table_lines(_COLUMNS, rows, spare=("when",), width=width) if rows else ["nothing charged yet"]


def short_charges(charges: Sequence[Mapping[str, Any]], made: Mapping[str, str], height: int) -> list[str]:
    """The newest charges, one a line, the oldest on top; `made` names what a job has made."""
    lines = [
        f"{one['first'][:10]} {made.get(one['job'], 'job ' + one['job'])}  eps {one['epsilon_after']:.2f}"
        for one in charges
    ]
    if len(lines) <= height:
        return lines or ["nothing charged yet"]
    return [f"{len(lines) - height + 1} before these", *lines[len(lines) - height + 1 :]]


def promise_lines(row: Mapping[str, Any], width: int) -> list[str]:
    """Whom a budget protects, and how it is counted."""
    unit = row["unit"]
    return wrapped(
        f"Protected: each {unit}, with all of its records added or removed. delta {row['delta']:.2g}."
        " Sampling: Poisson. Counted by privacy loss distributions (PLD), over all runs on this dataset.",
        width=width,
    )


def meaning_lines(row: Mapping[str, Any], width: int) -> list[str]:
    """What the epsilon that was spent means."""
    spent = row["epsilon_spent"]
    if spent <= 0:
        return wrapped("Nothing was spent: no model has learnt from it under this budget.", width=width)
    most = f"{math.exp(spent):,.1f}" if spent < 3 else f"{math.exp(min(spent, 700)):,.0f}"
    return wrapped(
        f"What epsilon {spent:.2f} means: whether one {row['unit']} is in the data or not, nothing that the"
        f" models show is more than {most} times as likely (e^{spent:.2f}), plus a chance of"
        f" {row['delta']:.2g} (delta). That is the worst case; the tests show what attacks found.",
        width=width,
    )


def audit_lines(report: Mapping[str, Any], width: int) -> list[str]:
    """All of an audit: the table, what each line found and could have found, and what none of it says."""
    findings = told_once(report["findings"])
    rows = [(one["test"], one["on"], one["name"], one["verdict"]) for one in findings]
    lines = table_lines(("test", "on", "what", "verdict"), rows, width=width) if rows else []
    for one in findings:
        lines += [
            "",
            *wrapped(f"{one['name']} ({one['on']}): {one['verdict']}", f"{one['test']}  ", width=width),
            *wrapped(one["found"], f"   {'found':<10} ", width=width),
            *wrapped(one["ceiling"], f"   {'could show':<10} ", width=width),
        ]
    lines += ["", *(f"privacy audit {verdict}  {name}" for name, verdict in report["verdicts"].items())]
    for text in report["limits"]:
        lines += wrapped(text, "  - ", width=width)
    return lines


def finding_lines(report: Mapping[str, Any], width: int, height: int) -> list[str]:
    """An audit in few lines, what is worst first; the rest is counted."""
    findings = [one for one in told_once(report["findings"]) if one["verdict"] in _WORST]
    findings.sort(key=lambda one: _WORST.index(one["verdict"]))
    lines = [f"{one['verdict']:<12} {one['name']} ({one['on']}): {one['found']}" for one in findings]
    shown = [line if len(line) <= width else line[: width - 2] + ".." for line in lines]
    if len(shown) <= height:
        return shown
    kept = max(0, height - 1)
    return [*shown[:kept], f"and {len(shown) - kept} more: enter shows all"]


def page_lines(
    row: Mapping[str, Any],
    charges: Sequence[Mapping[str, Any]],
    model: str | None,
    report: Mapping[str, Any] | None,
    width: int,
) -> list[str]:
    """All that is known of a dataset's privacy: for the detail view, and for a file."""
    spent, limit = row["epsilon_spent"], row["epsilon_limit"]
    lines = wrapped(
        f"{row['name']}: epsilon {spent:.2f} of {limit:g} spent ({state_word(spent, limit)}), delta"
        f" {row['delta']:.2g}, for each {row['unit']}",
        width=width,
    )
    lines += ["", *promise_lines(row, width), "", *meaning_lines(row, width)]
    lines += ["", "What was charged", *charge_lines(charges, width)]
    if len(charges) > 1:
        lines += ["", *wrapped(COMPOSED, width=width)]
    if model is None:
        return [*lines, "", "No model of it is here."]
    if report is None:
        return [*lines, "", f"Attack tests on {model}: none was run.", f"cloister audit-privacy {model}"]
    made = f"{report['created'][:16].replace('T', ' ')} UTC, job {report['job']}"
    return [*lines, "", f"Attack tests on {model} ({made})", *audit_lines(report, width)]


def told_once(findings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The findings in order, one that says the same of several files told once of all of them."""
    places: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for one in findings:
        said = tuple(one[name] for name in ("test", "name", "verdict", "found", "ceiling"))
        places.setdefault(said, []).append(one)
    return [
        {**same[0], "on": same[0]["on"] if len(same) == 1 else f"all {len(same)}: {same[0]['on']} ..."}
        for same in places.values()
    ]
