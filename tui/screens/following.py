"""A screen that follows one job: a worker tails its events and posts what they tell."""

from __future__ import annotations

import time

from textual import work
from textual.worker import get_current_worker

from appliance.core.events import ENDS, read_events
from appliance.ops.jobs import JobView
from tui.endings import failure
from tui.messages import Ended, LogLines, Metered, Progress
from tui.screens.frame import Framed
from tui.screens.machine import read_gpu, read_machine
from tui.screens.site import LIVE, JobRow, row_of
from tui.screens.story import Picture, Story
from tui.session_jobs import meter
from tui.steps import NextStep

_TAIL = 0.25  # seconds between two looks at the event file
_STATE = 1.0  # seconds between two looks at the process
_METER = 2.0  # seconds between two looks at the machine


class Following(Framed):
    """`follow` begins it; `job` is the newest look at the job itself."""

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self.job_id = job_id
        self.job: JobRow | None = None

    @work(thread=True, exclusive=True, group="follow", exit_on_error=False)
    def follow(self) -> None:
        """Tail the events for as long as this screen is there, also through an end and a resume."""
        worker = get_current_worker()
        story, offset, looked, job = Story(), 0, 0.0, self.site.job(self.job_id)
        load, metered = meter(self.site, job.id), 0.0
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
            why = failure(job).message if job.state == "died" else ""
            if lines := story.take(events, job.state, why):
                self.post_message(LogLines(lines))
            picture = story.picture
            if picture != told:
                over = job.state not in LIVE and (told is None or told.state in LIVE or events)
                step = self._after(job) if over else None
                self.post_message(Ended(picture, step) if over else Progress(picture))
                told = picture
            if job.state in LIVE and time.monotonic() - metered >= _METER:
                metered = time.monotonic()
                self.post_message(Metered(read_machine(self.site.home.path), read_gpu(), load.read()))
            time.sleep(_TAIL)

    def _after(self, job: JobView) -> NextStep | None:
        """What to do now that the job is done."""
        if job.state != "done":
            return None
        result = job.end.get("result")
        made = result.get("name") if isinstance(result, dict) and job.kind in ("train", "search") else None
        return self.site.step_after(made)
