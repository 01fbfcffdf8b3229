"""Evaluate: every report, newest first; start one, open one, write one out."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from tui.screens.blind import BlindList
from tui.screens.entry import Entry
from tui.screens.evaluate_form import ask_evaluation, ask_export
from tui.screens.evaluate_report import ReportScreen
from tui.screens.listing import Listing
from tui.screens.playground import ask_models
from tui.screens.site import SiteView


class EvaluateScreen(Listing):
    """The reports."""

    HERE = "evaluate"
    HELP = (
        "A report compares a model with its base on records it has never seen; the gate says whether the"
        " model may be served. Enter opens one. The same in a shell: cloister evaluate MODEL, cloister"
        " report list|show|export."
    )
    COLUMNS = ("MODEL", "DATASET", "GATE", "WHEN", "JOB")
    EMPTY = (
        "No reports yet.\n\nA report shows how a model does on records it has never seen."
        "\nPress n to measure a model, or 1 for Home: it names the next step."
    )
    RIGHTS: ClassVar[dict[str, str]] = {
        "new": "evaluate.start",
        "export": "report.export",
        "play": "serve.start",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New"),
        Binding("x", "export", "Export"),
        Binding("p", "play", "Playground"),
        Binding("c", "blind", "Blind"),
    ]
    PALETTE: ClassVar[tuple[Entry, ...]] = (
        Entry(words="evaluate", help="Measure a model against its base", action="new"),
        Entry(words="report blind", help="Two models compared blind", action="blind"),
        Entry(words="report list", help="Reports and gates"),
        Entry(words="report export", help="The chosen report as one HTML file", action="export"),
    )

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
        room = max(12, self.size.width - 52)
        self.fill([(key_of(report), cells(report, room)) for report in self.more])

    @property
    def report(self) -> dict[str, Any] | None:
        """The report under the cursor."""
        return next((one for one in self.more or () if key_of(one) == self.chosen), None)

    def reason(self, action: str) -> str | None:
        """Only what is there can be written out."""
        if action == "export" and self.report is None:
            return "there is no report"
        return super().reason(action)

    @on(DataTable.RowSelected)
    def chosen_opened(self) -> None:
        """Open the report."""
        if self.report is not None:
            self.app.push_screen(ReportScreen(str(self.report["job"]), self.report["model"]))

    def action_new(self) -> None:
        """Ask what to measure, and start it."""
        if self.view is not None:
            ask_evaluation(self, self.view)

    def action_play(self) -> None:
        """Ask several models the same; the files of the chosen report's model come first."""
        ask_models(self, self.report["model"] if self.report else "")

    def action_blind(self) -> None:
        """Compare two without knowing which is which."""
        self.app.push_screen(BlindList())

    def action_export(self) -> None:
        """Write the chosen report's page to a file."""
        if self.report is not None:
            ask_export(self, str(self.report["job"]), self.report["model"])


def key_of(report: dict[str, Any]) -> str:
    """What tells a row from the others."""
    return f"{report['model']} {report['job']}"


def cells(report: dict[str, Any], room: int) -> tuple[str, ...]:
    """One row; a report on part of the records is no verdict. The names give way."""
    gate = "part only" if report["partial"] else "PASS" if report["passed"] else "FAIL"
    when = str(report["created"])[:16].replace("T", " ")
    model = str(report["model"])
    model = model if len(model) <= room else model[: room - 2] + ".."
    return (model, report["dataset"], gate, when, str(report["job"]))
