"""Train: the trainings of this site, running and ended."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from tui.screens.deeds import why_not
from tui.screens.entry import Entry
from tui.screens.jobs import cells
from tui.screens.listing import Listing
from tui.screens.site import JobRow, SiteView


class TrainScreen(Listing):
    """The jobs that train."""

    HERE = "train"
    HELP = (
        "A training makes an adapter of a base and a dataset, under differential privacy unless you say"
        " otherwise. Enter shows one live. The same in a shell: cloister train, cloister job tail."
    )
    COLUMNS = ("ID", "JOB", "STATE", "DONE", "TIME", "WHO")
    EMPTY = (
        "No training yet.\n\nA training makes an adapter: a small file with what a base model learnt from"
        " your records.\nPress n for one: every setting has a default, and its plan is shown"
        " before it starts."
    )
    KINDS = ("train", "search")
    RIGHTS: ClassVar[dict[str, str]] = {
        "new": "train.start",
        "search": "train.start",
        "stop": "job.stop",
        "resume": "job.resume",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New"),
        Binding("v", "search", "Search", show=False, tooltip="Try several settings and keep the best"),
        Binding("s", "stop", "Stop"),
        Binding("r", "resume", "Resume"),
    ]
    PALETTE: ClassVar[tuple[Entry, ...]] = (
        Entry(words="train", help="Teach a base your records", action="new"),
        Entry(words="search", help="Try several settings of a training, keep the best", action="search"),
    )

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "Trainings"
            yield from self.table()

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        room = max(12, self.size.width - 50)
        self.fill([(job.id, cells(job, room)) for job in self.trainings])

    @property
    def trainings(self) -> list[JobRow]:
        """The jobs of this screen."""
        return [job for job in (self.view.jobs if self.view else ()) if job.kind in self.KINDS]

    @property
    def job(self) -> JobRow | None:
        """The job under the cursor."""
        return next((job for job in self.trainings if job.id == self.chosen), None)

    def reason(self, action: str) -> str | None:
        """Stop needs a running job, resume one that ended early."""
        here = why_not(action, self.job) if action in ("stop", "resume") else None
        return here or super().reason(action)

    @on(DataTable.RowSelected)
    def chosen_opened(self) -> None:
        """Open the training's live view."""
        if self.chosen is not None:
            self.open_job(self.chosen)

    def action_new(self) -> None:
        """A new training."""
        self.ask_training(search=False)

    def action_search(self) -> None:
        """Several, of which the best is kept."""
        self.ask_training(search=True)

    def ask_training(self, *, search: bool) -> None:
        """Open the form, which loads the options of the command line."""
        from tui.screens.training_form import ask_training

        ask_training(self, search=search)

    def action_stop(self) -> None:
        """Stop the training, after a question."""
        if self.job is not None:
            self.ask_stop(self.job)

    def action_resume(self) -> None:
        """Run it again from its last checkpoint and watch it."""
        if self.chosen is not None:
            self.resume(self.chosen)
            self.open_job(self.chosen)
