"""Feedback: what people said of answers; read, accept, reject. Words are shown only when asked for."""

from __future__ import annotations

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from appliance.serve.feedback import RATINGS
from appliance.serve.review import Feedback
from tui import session_feedback
from tui.cli.feedback import THUMBS, words_lines
from tui.messages import Read
from tui.screens.listing import Listing
from tui.screens.modals import Words
from tui.screens.site import SiteView


class FeedbackScreen(Listing):
    """The feedback list."""

    HERE = "serve"
    HELP = (
        "What people said of answers on the web page or through the API. Only what is accepted here is"
        " written out for the next version of a dataset (cloister feedback export FILE)."
        " Enter shows question and answer: that is record text. MARKS: correct, complete, clear, 1 to 5."
        " The same in a shell: cloister feedback list|show|accept|reject."
    )
    COLUMNS = ("WHEN", "MODEL", "THUMB", "MARKS", "CORRECTED", "STATE")
    EMPTY = (
        "No feedback yet.\n\nPeople give it on the endpoint's web page (thumbs, marks, a better answer) or"
        " through POST /v1/feedback.\nServe a model first: cloister serve MODEL"
    )
    RIGHTS: ClassVar[dict[str, str]] = {"judge": "feedback.review"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "judge(True)", "Accept"),
        Binding("x", "judge(False)", "Reject"),
    ]

    def crumbs(self) -> list[str]:
        """Serve, then this list."""
        return [*super().crumbs(), "Feedback"]

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "Feedback"
            yield from self.table()

    def draw(self, view: SiteView) -> None:
        """Fill the list, newest first."""
        self.fill([(said.id, cells(said)) for said in reversed(view.feedback)])

    def reason(self, action: str) -> str | None:
        """There must be something to judge."""
        if action.startswith("judge") and self.chosen is None:
            return "there is no feedback"
        return super().reason(action)

    @on(DataTable.RowSelected)
    def read(self) -> None:
        """Show the words of the chosen one."""
        if self.chosen is not None:
            self._read(self.chosen)

    @work(thread=True, group="deed", exit_on_error=False)
    def _read(self, feedback_id: str) -> None:
        said, words = session_feedback.read_feedback(self.site, feedback_id)
        self.post_message(Read(f"Feedback {said.id}", "\n".join(words_lines(said, words))))

    @on(Read)
    def show_words(self, event: Read) -> None:
        """The words are there."""
        self.app.push_screen(Words(event.title, event.text))

    def action_judge(self, accept: bool) -> None:
        """Accept or reject the chosen one; it can be judged again."""
        if self.chosen is not None:
            self._judge(self.chosen, accept)

    @work(thread=True, group="deed", exit_on_error=False)
    def _judge(self, feedback_id: str, accept: bool) -> None:
        session_feedback.judge(self.site, [feedback_id], accept=accept)
        self.app.call_from_thread(self.look_again)


def cells(said: Feedback) -> tuple[str, ...]:
    """One row; the model's name gives way."""
    model = said.model if len(said.model) <= 20 else said.model[:18] + ".."
    marks = " ".join(str(said.ratings.get(name, "-")) for name in RATINGS) if said.ratings else "-"
    corrected = "yes" if said.corrected else "-"
    return (said.created[:16].replace("T", " "), model, THUMBS[said.thumb], marks, corrected, said.state)
