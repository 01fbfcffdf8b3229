"""All that is known of one dataset's privacy, to read."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

from tui.cli.privacy_lines import page_lines
from tui.screens.frame import Framed
from tui.screens.privacy_forms import ask_export
from tui.widgets.pane import Pane


class PrivacyDetail(Framed):
    """Scrolled with arrows and page keys."""

    HERE = "privacy"
    AUTO_FOCUS = "#body"
    HELP = (
        "Every training that was charged, with the settings that its price follows from, and each attack test"
        " with what it found and the least that it could have found. The same in a shell: cloister budget"
        " show DATASET, cloister audit-privacy MODEL --last."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"export": "report.export"}
    BINDINGS: ClassVar[list[BindingType]] = [Binding("x", "export", "Export report")]

    def __init__(
        self,
        row: dict[str, Any],
        charges: list[dict[str, Any]],
        model: str | None,
        tested: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.row, self.charges, self.model, self.tested = row, charges, model, tested

    def crumbs(self) -> list[str]:
        """Privacy, then the dataset."""
        return [*super().crumbs(), self.row["name"]]

    def body(self) -> ComposeResult:
        """One long text."""
        with VerticalScroll(id="body"):
            yield Pane("Budget, charges, attack tests", id="all")

    def begin(self) -> None:
        """Draw it."""
        super().begin()
        self.query_one("#all", Pane).show(
            lambda width, height: "\n".join(
                page_lines(self.row, self.charges, self.model, self.tested, width)
            )
        )

    def action_export(self) -> None:
        """Write it to a file."""
        ask_export(self, self.row["name"])
