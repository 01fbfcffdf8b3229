"""Audit: the log, the chosen entry, who is here; verify, export, people, requests, network, evidence."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable

from tui import session_airgap, session_audit, session_evidence, session_people
from tui.screens.audit_forms import CHECKPOINT, ENTRIES, EVIDENCE, EXPORT
from tui.screens.audit_lines import (
    cells,
    checkpoint_text,
    entry_text,
    evidence_text,
    log_title,
    network_text,
    people_text,
    verdict_text,
    witness_text,
)
from tui.screens.entry import Entry
from tui.screens.form import FormWindow
from tui.screens.listing import Listing
from tui.screens.modals import Words
from tui.screens.people import PeopleScreen
from tui.screens.requests import RequestsScreen
from tui.screens.site import SiteView
from tui.widgets.pane import Pane

_WIDTH = 66  # of a window at 80 columns


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The newest entries, the people, and how many requests wait."""

    entries: list[dict[str, Any]]
    people: dict[str, Any]
    waiting: int


class AuditScreen(Listing):
    """The log's newest entries, and what is done with the log."""

    HERE = "audit"
    HELP = (
        "Every change is an entry of a log that cannot be rewritten unseen. v hashes all of it anew. A"
        " checkpoint that is kept elsewhere shows later whether anything was changed. The same in a shell:"
        " cloister audit tail|verify|export|checkpoint|witness, people, approve, airgap check, evidence."
    )
    COLUMNS = ("ENTRY", "WHEN", "WHO", "WHAT", "TARGET")
    EMPTY = "The log is empty.\n\nEvery change at this site becomes an entry here, from the first one on."
    STEP = 500
    RIGHTS: ClassVar[dict[str, str]] = {
        "verify": "audit.verify",
        "export": "audit.export",
        "older": "audit.read",
        "network": "airgap.check",
        "evidence": "evidence.write",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "verify", "Verify"),
        Binding(
            "e", "export", "Export", show=False, tooltip="Entries with proofs, or a checkpoint, to a file"
        ),
        Binding("u", "people", "People"),
        Binding("r", "requests", "Sign", tooltip="Requests that wait for two people"),
        Binding("n", "network", "Network", show=False, tooltip="Try every way out of the jail"),
        Binding("w", "evidence", "Evidence", show=False, tooltip="A signed report for laws and standards"),
        Binding("o", "older", "Older", show=False, tooltip="Entries from further back"),
    ]
    PALETTE: ClassVar[tuple[Entry, ...]] = (
        Entry(words="audit tail", help="The newest entries of the log"),
        Entry(words="audit verify", help="Hash the whole log anew", action="verify"),
        Entry(words="audit export", help="Entries, a checkpoint, or one that came back", action="export"),
        Entry(words="people list", help="Who is here, roles, emergencies", action="people"),
        Entry(words="approve list", help="What two people are asked", action="requests"),
        Entry(words="airgap check", help="Try every way out of the jail", action="network"),
        Entry(words="evidence", help="A signed report for HIPAA, GDPR, NIST, AI Act", action="evidence"),
    )
    verdict: dict[str, Any] | None = None
    checked = ""

    def begin(self) -> None:
        """From the newest entries on."""
        self._count = self.STEP
        super().begin()

    def body(self) -> ComposeResult:
        """The list, in a box, and below it the chosen entry and the people."""
        with Vertical(id="body"):
            with Vertical(id="log-box", classes="box") as box:
                box.border_title = "Log"
                yield from self.table()
            with Horizontal(id="below"):
                yield Pane("Entry", id="entry")
                yield Pane("People", id="people")

    def read_more(self, view: SiteView) -> Seen:
        """Entries, for who may read the log; people and requests."""
        may = self.site.why_not("audit.read") is None
        waiting = session_people.requests(self.site)
        return Seen(
            entries=self.site.audit_tail(self._count) if may else [],
            people=session_people.people(self.site),
            waiting=sum(asked.state == "pending" for asked in waiting),
        )

    def draw(self, view: SiteView) -> None:
        """Fill the list, newest first."""
        room = max(8, self.size.width - 58)
        self.fill([(str(entry["seq"]), cells(entry, room)) for entry in reversed(self.more.entries)])
        self.query_one("#log-box").border_title = log_title(self.verdict, self.checked)
        people, waiting = self.query_one("#people", Pane), self.more.waiting
        people.border_title = f"People   {waiting} to answer: press r" if waiting else "People"
        text = people_text(self.more.people)
        people.show(lambda width, height: text)
        self.show_entry()

    @property
    def entry(self) -> dict[str, Any] | None:
        """The entry under the cursor."""
        entries = self.more.entries if self.more else ()
        return next((entry for entry in entries if str(entry["seq"]) == self.chosen), None)

    @on(DataTable.RowHighlighted)
    def show_entry(self) -> None:
        """Fields of the chosen entry."""
        pane, entry = self.query_one("#entry", Pane), self.entry
        pane.border_title = f"Entry {entry['seq']}" if entry else "Entry"
        pane.show(lambda width, height: entry_text(entry, width) if entry else "")

    @on(DataTable.RowSelected)
    def open_entry(self) -> None:
        """All fields of the chosen entry."""
        if self.entry is not None:
            self.app.push_screen(Words(f"Entry {self.entry['seq']}", entry_text(self.entry, _WIDTH)))

    def action_older(self) -> None:
        """Read further back."""
        self._count += self.STEP
        self.app.notify(f"The newest {self._count} entries.", timeout=3, markup=False)
        self.look_again()

    def action_verify(self) -> None:
        """Hash the whole log anew."""
        self.app.notify("Hashing the log ...", timeout=2, markup=False)
        self.attempt(lambda: session_audit.verify(self.site), self._verified)

    def _verified(self, verdict: dict[str, Any]) -> None:
        self.verdict, self.checked = verdict, time.strftime("%H:%M")
        self.query_one("#log-box").border_title = log_title(verdict, self.checked)
        title = "The log is intact" if verdict["ok"] else "The log is DAMAGED"
        self.app.push_screen(Words(title, verdict_text(verdict)))

    def action_export(self) -> None:
        """Write entries or a checkpoint out, or hold the log against one that came back."""

        def answered(found: dict[str, Any] | None) -> None:
            if found is not None:
                self.attempt(lambda: self._written(found), lambda told: self.app.push_screen(Words(*told)))

        self.app.push_screen(FormWindow("Signed log", "Do it", EXPORT), answered)

    def _written(self, found: dict[str, Any]) -> tuple[str, str]:
        path = found["path"]
        if found["what"] == ENTRIES:
            first = found["first"] or 1
            made = session_audit.export(self.site, path, first=first, last=found["last"])
            head = f"Entries {made['first']} to {made['last']} are in {path}."
            how = "Others check it with: cloister audit verify FILE --key KEY"
            return "Entries exported", f"{head}\n\n{checkpoint_text(made)}\n\n{how}"
        if found["what"] == CHECKPOINT:
            made = session_audit.checkpoint(self.site, path)
            how = f"Written to {path}. Keep it away from this machine; bring it back with the same key."
            return "Checkpoint", f"{checkpoint_text(made)}\n\n{how}"
        return "Witness", witness_text(session_audit.witness(self.site, path))

    def action_people(self) -> None:
        """Who is here."""
        self.app.push_screen(PeopleScreen())

    def action_requests(self) -> None:
        """What two people are asked."""
        self.app.push_screen(RequestsScreen())

    def action_network(self) -> None:
        """Try every way out."""
        self.app.notify("Trying every way out of the jail; it takes some seconds.", timeout=5, markup=False)
        self.attempt(
            lambda: session_airgap.check(self.site),
            lambda found: self.app.push_screen(Words("Network self-test", network_text(found, _WIDTH))),
        )

    def action_evidence(self) -> None:
        """Test the site and write the signed report."""

        def answered(found: dict[str, Any] | None) -> None:
            if found is None:
                return
            law = None if found["law"] == "all" else found["law"]
            self.app.notify("Testing this site; the report opens when it is done.", timeout=8, markup=False)
            self.attempt(
                lambda: session_evidence.write(self.site, found["folder"], law, lambda *_: None),
                lambda made: self.app.push_screen(Words("Evidence report", evidence_text(made))),
            )

        self.app.push_screen(FormWindow("Evidence report", "Test and sign", EVIDENCE), answered)
