"""Evaluate: every report, newest first."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical

from tui.screens.entry import Entry
from tui.screens.listing import Listing
from tui.screens.site import SiteView


class EvaluateScreen(Listing):
    """The reports."""

    HERE = "evaluate"
    HELP = (
        "A report compares a model with its base on records it has never seen; the gate says whether the"
        " model may be served. The same in a shell: cloister evaluate MODEL."
    )
    COLUMNS = ("MODEL", "DATASET", "GATE", "WHEN", "JOB")
    EMPTY = (
        "No reports yet.\n\nA report shows how a model does on records it has never seen."
        "\nPress : and choose `evaluate MODEL`, or press 1 for Home: it names the next step."
    )
    PALETTE: ClassVar[tuple[Entry, ...]] = (Entry(words="evaluate", help="Reports and gates"),)

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "Reports"
            yield from self.table()

    def read_more(self, view: SiteView) -> list[dict[str, Any]]:
        """The reports."""
        return self.site.reports() if self.site.why_not("report.read") is None else []

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        self.fill([(f"{report['model']} {report['job']}", cells(report)) for report in self.more])


def cells(report: dict[str, Any]) -> tuple[str, ...]:
    """One row; a report on part of the records is no verdict."""
    gate = "part only" if report["partial"] else "PASS" if report["passed"] else "FAIL"
    when = str(report["created"])[:16].replace("T", " ")
    return (report["model"], report["dataset"], gate, when, str(report["job"]))
