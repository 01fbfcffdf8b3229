"""Requests: what two people are asked, and their signed answers."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from appliance.security.people.rows import Asked
from tui import session_people
from tui.screens.listing import Listing
from tui.screens.modals import Confirm, Words
from tui.screens.request_lines import asked_text, cells, outcome, why_not_answer
from tui.screens.site import SiteView


class RequestsScreen(Listing):
    """What waits for a second person, or for its use."""

    HERE = "audit"
    HELP = (
        "Some things two people must agree to, one of them a privacy officer. Each signs exactly what is"
        " shown, with the key they signed in with. An agreed request works once, within 24 hours."
        " The same in a shell: cloister approve list|show|yes|no."
    )
    COLUMNS = ("ID", "WHAT", "TARGET", "ASKED BY", "AGREED", "STATE")
    EMPTY = (
        "Nobody is asked anything.\n\nWhat needs two people is asked for where it is done; it then stands"
        " here until a second person has answered.\nPress h for what was used, refused or has expired."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Agree"),
        Binding("n", "answer(False)", "Refuse"),
        Binding("h", "history", "History"),
    ]
    every = False

    def crumbs(self) -> list[str]:
        """Audit, then this list."""
        return [*super().crumbs(), "Requests"]

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "Two people must agree"
            yield from self.table()

    def read_more(self, view: SiteView) -> list[Asked]:
        """The requests."""
        return session_people.requests(self.site, every=self.every)

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        self.fill([(asked.id, cells(asked)) for asked in self.more])

    @property
    def asked(self) -> Asked | None:
        """The request under the cursor."""
        return next((asked for asked in self.more or () if asked.id == self.chosen), None)

    def reason(self, action: str) -> str | None:
        """There must be something to answer."""
        if action.startswith("answer"):
            return why_not_answer(self.asked, self.site.who)
        return super().reason(action)

    @on(DataTable.RowSelected)
    def read(self) -> None:
        """Show all of the chosen request."""
        if self.asked is not None:
            self.app.push_screen(Words(f"Request {self.asked.id}", asked_text(self.asked)))

    def action_history(self) -> None:
        """Also what is over, or no longer."""
        self.every = not self.every
        self.look_again()

    def action_answer(self, yes: bool) -> None:
        """Sign an answer to the chosen request, after all of it was shown."""
        if self.asked is None:
            return
        asked_id = self.asked.id

        def show(asked: Asked) -> None:
            def answered(sure: bool | None) -> None:
                if sure:
                    self.attempt(
                        lambda: session_people.answer(self.site, asked_id, yes=yes),
                        self._answered,
                    )

            text = asked_text(asked)
            question = f"Do you agree to this?\n\n{text}" if yes else f"Refuse this?\n\n{text}"
            self.app.push_screen(Confirm(question, "Sign: I agree" if yes else "Sign: I refuse"), answered)

        self.attempt(lambda: session_people.request(self.site, asked_id), show)

    def _answered(self, asked: Asked) -> None:
        text = outcome(asked)
        if asked.state == "used" and asked.request["action"] == "person.remove":
            text += " On a sealed site, seal it anew: cloister vault rotate"
        self.app.notify(text, markup=False)
        self.look_again()
