"""Audit: the newest entries of the log."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical

from tui.screens.entry import Entry
from tui.screens.listing import Listing
from tui.screens.site import SiteView


class AuditScreen(Listing):
    """The log's newest entries."""

    HERE = "audit"
    HELP = (
        "Every change is a line of a log that cannot be rewritten unseen. The same in a shell:"
        " cloister audit tail|verify|export."
    )
    COLUMNS = ("ENTRY", "WHEN", "WHO", "WHAT")
    EMPTY = "The log is empty.\n\nEvery change at this site becomes an entry here, from the first one on."
    NEWEST = 500
    PALETTE: ClassVar[tuple[Entry, ...]] = (Entry(words="audit tail", help="The newest entries of the log"),)

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "Log"
            yield from self.table()

    def read_more(self, view: SiteView) -> list[dict[str, Any]]:
        """The newest entries, for who may read the log."""
        return self.site.audit_tail(self.NEWEST) if self.site.why_not("audit.read") is None else []

    def draw(self, view: SiteView) -> None:
        """Fill the list, newest first."""
        self.fill([(str(entry["seq"]), cells(entry)) for entry in reversed(self.more)])


def cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """One row."""
    when = str(entry.get("at", ""))[:19].replace("T", " ")
    return (f"#{entry['seq']}", when, str(entry.get("who", "")), str(entry.get("what", "")))
