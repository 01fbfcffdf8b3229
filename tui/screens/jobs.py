"""Jobs: all of them, newest first; open, stop, resume."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from tui.screens.deeds import why_not
from tui.screens.listing import Listing
from tui.screens.site import JobRow, SiteView
from tui.widgets.fit import fit


class JobsScreen(Listing):
    """The job list."""

    HELP = (
        "A job is one import, training, evaluation, quantising or endpoint."
        " States: waiting, running, done, failed (it said why), stopped (it was asked to),"
        " died (killed, or the machine went down). The same in a shell: cloister job list|tail|stop|resume."
    )
    COLUMNS = ("ID", "JOB", "STATE", "DONE", "TIME", "WHO")
    EMPTY = (
        "No jobs yet.\n\nA job is one import, training, evaluation, quantising or endpoint;"
        " nothing of that was started here so far.\nPress 1 for Home: it names the next step."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"stop": "job.stop", "resume": "job.resume"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "stop", "Stop"),
        Binding("r", "resume", "Resume"),
    ]

    def __init__(self, here: str) -> None:
        super().__init__()
        self.HERE = here

    def crumbs(self) -> list[str]:
        """The screen it lies over, then this one."""
        return [*super().crumbs(), "Jobs"]

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "Jobs"
            yield from self.table()

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        room = max(12, self.size.width - 50)
        self.fill([(job.id, cells(job, room)) for job in view.jobs])

    @property
    def job(self) -> JobRow | None:
        """The job under the cursor."""
        jobs = self.view.jobs if self.view else ()
        return next((job for job in jobs if job.id == self.chosen), None)

    def reason(self, action: str) -> str | None:
        """Stop needs a running job, resume one that ended early."""
        here = why_not(action, self.job) if action in ("open", "stop", "resume") else None
        return here or super().reason(action)

    @on(DataTable.RowSelected)
    def chosen_opened(self) -> None:
        """Open the job's live view."""
        if self.chosen is not None:
            self.open_job(self.chosen)

    def action_stop(self) -> None:
        """Stop the job, after a question."""
        if self.job is not None:
            self.ask_stop(self.job)

    def action_resume(self) -> None:
        """Run the job again and watch it."""
        if self.chosen is not None:
            self.resume(self.chosen)
            self.open_job(self.chosen)


def cells(job: JobRow, room: int) -> tuple[str, ...]:
    """One row; the title gives way on a narrow screen."""
    return (job.id, fit(job.title, room), job.state, job.percent, job.time, job.who)
