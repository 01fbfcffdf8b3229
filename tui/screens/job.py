"""One job, live: how far it is, loss, privacy budget, machine, log, and how it ended with what comes next.

Draws at most once a second, and at once when the job ends. Log lines wait for the next drawing, none is
dropped.
"""

from __future__ import annotations

import time
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.timer import Timer

from tui.messages import Ended, LogLines, Metered, Progress
from tui.screens import job_lines
from tui.screens.deeds import Deed, deed_of, why_not
from tui.screens.following import Following
from tui.screens.job_results import end_text
from tui.screens.site import LIVE
from tui.screens.story import Line, Picture
from tui.steps import NextStep
from tui.widgets.frame import TitleLine
from tui.widgets.log import LogView
from tui.widgets.pane import Pane


class JobScreen(Following):
    """The live view of a job."""

    AUTO_FOCUS = ""
    REDRAW = 1.0
    VERTICAL_BREAKPOINTS = [(0, "-short"), (36, "-tall")]  # noqa: RUF012
    HELP = (
        "The job goes on when you leave. Loss: how wrong the model is on the batch it sees, - training,"
        " o validation. Epsilon: what all trainings on this data set have spent so far of its privacy budget,"
        " stated as a bound. Clipped: units whose gradient was cut to the bound. A training is saved after"
        " every step, so stopping loses at most the step at work. The same in a shell: cloister job tail ID."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"stop": "job.stop", "resume": "job.resume"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "next", "Next", key_display="enter"),
        Binding("s", "stop", "Stop"),
        Binding("r", "resume", "Resume"),
        Binding("l", "log", "Log"),
    ]

    def __init__(self, job_id: str, here: str = "home") -> None:
        super().__init__(job_id)
        self.HERE = here
        self.picture = Picture()
        self.step: NextStep | None = None
        self._meters: Metered | None = None
        self._waiting: list[Line] = []
        self._drawn = 0.0
        self._soon: Timer | None = None
        self.drawings = 0

    def crumbs(self) -> list[str]:
        """The screen it was opened from, then the job."""
        return [*super().crumbs(), f"{self.job_id} {self.job.title}" if self.job else f"job {self.job_id}"]

    def body(self) -> ComposeResult:
        """End, run and what belongs beside it, budget and machine, log."""
        with VerticalScroll(id="body", can_focus=False):
            yield Pane("", id="end")
            with Container(id="panes"):
                yield Pane("Run", id="run")
                yield Pane("Steps", id="side")
                yield Pane("Privacy budget", id="budget")
                yield Pane("Machine", id="machine")
            log = LogView("Log", id="log")
            log.anchor()
            yield log

    def begin(self) -> None:
        """Begin to follow."""
        super().begin()
        self.query_one("#log").focus(scroll_visible=False)
        self.query_one("#run", Pane).show(
            lambda width, height: job_lines.run_text(self.picture, self.job.title if self.job else "", width)
        )
        self.query_one("#side", Pane).show(
            lambda width, height: job_lines.side_text(self.picture, self.kind, width, height)
        )
        self.query_one("#budget", Pane).show(
            lambda width, height: job_lines.budget_text(self.picture, width, height)
        )
        self.query_one("#machine", Pane).show(lambda width, height: self._machine_text(width))
        self.set_interval(self.REDRAW, self._tick)
        self.follow()

    @property
    def kind(self) -> str:
        """What kind of job this is, "" before the first look."""
        return self.job.kind if self.job else ""

    @on(Progress)
    def progress(self, event: Progress) -> None:
        """Draw, now or within the second."""
        self.picture, self.step = event.picture, None
        self._draw_soon()

    @on(LogLines)
    def log_lines(self, event: LogLines) -> None:
        """Keep the lines for the next drawing."""
        self._waiting += event.lines
        self._draw_soon()

    @on(Metered)
    def metered(self, event: Metered) -> None:
        """Keep the readings for the next drawing."""
        self._meters = event

    @on(Ended)
    def ended(self, event: Ended) -> None:
        """Draw the end at once."""
        self.picture, self.step = event.picture, event.step
        self.ask_stop_no_more()
        self.draw()

    def _draw_soon(self) -> None:
        wait = self._drawn + self.REDRAW - time.monotonic()
        if wait <= 0:
            self.draw()
        elif self._soon is None:
            self._soon = self.set_timer(wait, self.draw)

    def draw(self) -> None:
        """Show the picture and the lines that waited."""
        if self._soon is not None:
            self._soon.stop()
            self._soon = None
        self._drawn = time.monotonic()
        self.drawings += 1
        picture = self.picture
        self.query_one("#log", LogView).add((line.at, line.text) for line in self._waiting)
        self._waiting = []
        self._draw_end(picture)
        self.set_class(picture.plan is not None, "-planned")
        self.set_class(bool(picture.losses), "-curve")
        self.query_one("#side").border_title = job_lines.side_title(picture, self.kind)
        self.query_one("#budget").border_title = job_lines.budget_title(picture)
        self._redraw("#run", "#side", "#budget", "#machine")
        self.query_one(TitleLine).show(self.crumbs())
        self.refresh_bindings()

    def _redraw(self, *panes: str) -> None:
        self.query_one("#run").border_title = job_lines.run_title(self.picture, time.time())
        for pane in panes:
            self.query_one(pane, Pane).redraw()

    def _machine_text(self, width: int) -> str:
        read = self._meters
        if read is None:
            return "reading ..."
        return job_lines.machine_text(
            self.picture, read.machine, read.gpu, read.load, now=time.time(), width=width
        )

    def _draw_end(self, picture: Picture) -> None:
        pane = self.query_one("#end", Pane)
        found = end_text(self.job_id, self.kind, picture)
        self.set_class(found is not None, "-ended")
        pane.set_class(picture.state in ("failed", "died"), "-bad")
        if found is not None:
            title, text = found
            pane.border_title = title
            deed = self.deed
            first = f"> {self.step.text}  [Enter: {deed.key}]\n" if self.step and deed else ""
            pane.show(lambda width, height: first + text)  # what comes next is never cut off

    def _tick(self) -> None:
        """Keep the time running while nothing else comes."""
        if self.picture.state in LIVE and time.monotonic() - self._drawn >= self.REDRAW:
            self._redraw("#machine")

    @property
    def deed(self) -> Deed | None:
        """What Enter does once the job is done, or an endpoint is up."""
        if self.kind == "serve" and self.picture.ready and self.picture.state in LIVE:
            return Deed(kind="form", verb="chat", words="cloister chat")
        deed = deed_of(self.step) if self.step else None
        return None if deed is None or deed.target == self.job_id else deed

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is a next step only where the job is done or answers."""
        return False if action == "next" and self.deed is None else super().check_action(action, parameters)

    def reason(self, action: str) -> str | None:
        """Stop needs a running job, resume one that ended early."""
        here = why_not(action, self.job) if action in ("stop", "resume") else None
        return here or super().reason(action)

    def action_next(self) -> None:
        """Do the next step."""
        if self.deed is not None:
            self.carry_out(self.deed)

    def action_stop(self) -> None:
        """Stop the job, after a question."""
        if self.job is not None:
            self.ask_stop(self.job)

    def action_resume(self) -> None:
        """Run the job again."""
        self.resume(self.job_id)

    def action_log(self) -> None:
        """The log over the whole screen, and back."""
        self.toggle_class("-log")
