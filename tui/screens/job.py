"""One job, live: state, stage, figures, loss curve, privacy plan, log, and how it ended.

A worker tails the job's events and posts them; this screen draws at most once a second, and at once
when the job ends. Log lines wait for the next drawing, none is dropped.
"""

from __future__ import annotations

import time
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.timer import Timer
from textual.widgets import RichLog
from textual.worker import get_current_worker

from appliance.core.events import ENDS, read_events
from tui.messages import Ended, LogLines, Progress
from tui.screens import job_lines
from tui.screens.deeds import why_not
from tui.screens.frame import Framed
from tui.screens.site import LIVE, JobRow, row_of
from tui.screens.story import Line, Picture, Story
from tui.widgets.chart import draw_chart
from tui.widgets.frame import TitleLine
from tui.widgets.pane import Pane

_TAIL = 0.25  # seconds between two looks at the event file
_STATE = 1.0  # seconds between two looks at the process


class JobScreen(Framed):
    """The live view of a job."""

    AUTO_FOCUS = "#log"
    REDRAW = 1.0
    HELP = (
        "The job goes on when you leave. Loss: how wrong the model is on the batch it sees, - training,"
        " o validation. Epsilon: what the run has spent so far of the privacy budget, stated as a bound."
        " Clipped: units whose gradient was cut to the bound. The same in a shell: cloister job tail ID."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"stop": "job.stop", "resume": "job.resume"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "stop", "Stop"),
        Binding("r", "resume", "Resume"),
        Binding("l", "log", "Log"),
    ]

    def __init__(self, job_id: str, here: str = "home") -> None:
        super().__init__()
        self.HERE = here
        self.job_id = job_id
        self.job: JobRow | None = None
        self.picture = Picture()
        self._waiting: list[Line] = []
        self._drawn = 0.0
        self._soon: Timer | None = None
        self.drawings = 0

    def crumbs(self) -> list[str]:
        """The screen it was opened from, then the job."""
        return [*super().crumbs(), f"{self.job_id} {self.job.title}" if self.job else f"job {self.job_id}"]

    def body(self) -> ComposeResult:
        """End, run and curve, plan, log."""
        with VerticalScroll(id="body", can_focus=False):
            yield Pane("", id="end")
            with Horizontal(id="upper"):
                yield Pane("Run", id="run")
                yield Pane("Loss  - training  o validation", id="chart")
            yield Pane("Privacy plan", id="plan")
            log = RichLog(id="log", wrap=True, markup=False, highlight=False, max_lines=5000, min_width=20)
            log.border_title = "Log"
            log.anchor()
            yield log

    def begin(self) -> None:
        """Begin to follow."""
        super().begin()
        self.query_one("#run", Pane).show(
            lambda width, height: job_lines.run_text(self.picture, time.time(), width)
        )
        self.set_interval(self.REDRAW, self._tick)
        self.follow()

    @work(thread=True, exclusive=True, group="follow", exit_on_error=False)
    def follow(self) -> None:
        """Tail the events for as long as this screen is there, also through an end and a resume."""
        worker = get_current_worker()
        story, offset, looked, job = Story(), 0, 0.0, self.site.job(self.job_id)
        told: Picture | None = None
        while not worker.is_cancelled:
            events, offset = read_events(job.folder / "events.jsonl", offset)
            marks = any(event["event"] in ("started", *ENDS) for event in events)
            if marks or time.monotonic() - looked >= _STATE:
                job, looked = self.site.job(self.job_id), time.monotonic()
                self.job = row_of(job, time.time())
                # Read after the state: the event that ended the job is then among them.
                more, offset = read_events(job.folder / "events.jsonl", offset)
                events += more
            if lines := story.take(events, job.state):
                self.post_message(LogLines(lines))
            picture = story.picture
            if picture != told:
                over = job.state not in LIVE and (told is None or told.state in LIVE or events)
                self.post_message(Ended(picture) if over else Progress(picture))
                told = picture
            time.sleep(_TAIL)

    @on(Progress)
    def progress(self, event: Progress) -> None:
        """Draw, now or within the second."""
        self.picture = event.picture
        self._draw_soon()

    @on(LogLines)
    def log_lines(self, event: LogLines) -> None:
        """Keep the lines for the next drawing."""
        self._waiting += event.lines
        self._draw_soon()

    @on(Ended)
    def ended(self, event: Ended) -> None:
        """Draw the end at once."""
        self.picture = event.picture
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
        picture, log = self.picture, self.query_one("#log", RichLog)
        for line in self._waiting:
            log.write(f"{line.at}  {line.text}")
        self._waiting = []
        self._draw_end(picture)
        self.query_one("#run", Pane).redraw()
        chart, plan = self.query_one("#chart", Pane), self.query_one("#plan", Pane)
        self.set_class(bool(picture.losses), "-curve")
        chart.show(lambda w, h: "\n".join(draw_chart(picture.losses, picture.validation, w, h)))
        self.set_class(picture.plan is not None, "-planned")
        plan.show(lambda width, height: job_lines.plan_text(picture.plan, width))
        self.query_one(TitleLine).show(self.crumbs())
        self.renew_keys()

    def _draw_end(self, picture: Picture) -> None:
        pane = self.query_one("#end", Pane)
        found = job_lines.end_text(self.job_id, self.job.kind if self.job else "", picture)
        self.set_class(found is not None, "-ended")
        pane.set_class(picture.state in ("failed", "died"), "-bad")
        if found is not None:
            title, text = found
            pane.border_title = title
            pane.show(lambda width, height: text)

    def _tick(self) -> None:
        """Keep the time running while nothing else comes."""
        if self.picture.state in LIVE and time.monotonic() - self._drawn >= self.REDRAW:
            self.query_one("#run", Pane).redraw()

    def reason(self, action: str) -> str | None:
        """Stop needs a running job, resume one that ended early."""
        here = why_not(action, self.job) if action in ("stop", "resume") else None
        return here or super().reason(action)

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
