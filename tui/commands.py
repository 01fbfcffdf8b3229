"""The command palette: one table, its words those of the CLI, so that each teaches the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from appliance.core.errors import ApplianceError
from tui.screens.deeds import Deed, deed_of, why_not
from tui.screens.entry import Entry
from tui.screens.frame import Framed
from tui.screens.modes import screen_class
from tui.screens.site import SiteView, look
from tui.steps import NextStep

if TYPE_CHECKING:
    from tui.app import Cloister


FIXED = (
    Entry(words="job list", help="What runs and what ran", action="jobs"),
    Entry(
        words="model import demo",
        help="Enter the small base that is shipped",
        action="step",
        target="cloister model import demo",
    ),
    Entry(
        words="demo",
        help="The whole chain on made-up records (shows the words to type)",
        action="step",
        target="cloister demo",
    ),
    Entry(words="settings", help="Theme and characters of the screens", action="settings"),
    Entry(words="help", help="Keys and what this screen is", action="help"),
    Entry(words="leave", help="Close the screens; running jobs go on", action="leave"),
)


def entries(view: SiteView | None) -> Iterator[Entry]:
    """What can be done now: the fixed entries, then those for the jobs and models there are."""
    yield from FIXED
    if view is None:
        return
    for job in view.jobs:
        what = f"{job.title}, {job.state}"
        yield Entry(words=f"job tail {job.id}", help=f"Watch {what}", action="open", target=job.id)
        if not why_not("stop", job):
            yield Entry(words=f"job stop {job.id}", help=f"Stop {what}", action="stop", target=job.id)
        if not why_not("resume", job):
            yield Entry(words=f"job resume {job.id}", help=f"Resume {what}", action="resume", target=job.id)
    bases = [model.name for model in view.models if model.kind == "base"]
    if view.datasets and bases:
        words = f"train {view.datasets[-1].name} --base {bases[-1]}"
        yield Entry(words=words, help="Under differential privacy", action="step", target=f"cloister {words}")
    for model in reversed(view.models):
        for verb, help_ in _VERBS[model.kind]:
            words = f"{verb} {model.name}"
            yield Entry(words=words, help=help_, action="step", target=f"cloister {words}")


_QUANTIZE = ("quantize", "Make proven GGUF files of it, INT4 and INT8")
_SERVE = ("serve", "OpenAI-compatible endpoint on 127.0.0.1:8080")
_VERBS = {
    "base": [_QUANTIZE],
    "adapter": [("evaluate", "Measure it against its base"), _QUANTIZE, _SERVE],
    "gguf": [("evaluate", "Measure it as it is served"), _SERVE],
}


def deed_for(entry: Entry) -> Deed:
    """The deed of a "step" entry, as Home would do it."""
    return deed_of(NextStep(text=entry.words, why=entry.help, command=entry.target))


class Commands(Provider):
    """Gives the table to Textual's palette. Looks at the site itself: over a job nobody else does."""

    MOST = 30  # jobs
    view: SiteView | None = None

    async def discover(self) -> Hits:
        """All entries, before anything is typed."""
        for mode, entry in self._entries():
            yield DiscoveryHit(entry.words, partial(self._run, mode, entry), help=entry.help)

    async def search(self, query: str) -> Hits:
        """Entries whose words match."""
        matcher = self.matcher(query)
        for mode, entry in self._entries():
            score = matcher.match(entry.words)
            if score > 0:
                run = partial(self._run, mode, entry)
                yield Hit(score, matcher.highlight(entry.words), run, help=entry.help)

    def _entries(self) -> list[tuple[str, Entry]]:
        """Each entry with the screen it belongs to, "" where any will do; locked, the fixed ones are left."""
        app = cast("Cloister", self.app)
        if self.view is None:  # at once: the palette gives up what is still awaited when a key is pressed
            with suppress(ApplianceError):
                self.view = look(app.session, time.time(), self.MOST)
        own = [(mode, entry) for mode in app.MODES for entry in screen_class(mode).PALETTE]
        return [*own, *(("", entry) for entry in entries(self.view))]

    def _run(self, mode: str, entry: Entry) -> None:
        app, screen = cast("Cloister", self.app), self.screen
        if mode:
            app.show_screen(mode, entry.action)
        elif entry.action == "jobs":
            app.action_jobs()
        elif entry.action == "settings":
            app.action_settings()
        elif entry.action == "help":
            app.action_help()
        elif entry.action == "leave":
            app.exit()
        elif isinstance(screen, Framed):
            if entry.action == "step":
                screen.carry_out(deed_for(entry))
            elif entry.action == "open":
                screen.open_job(entry.target)
            elif entry.action == "resume":
                screen.resume(entry.target)
                screen.open_job(entry.target)
            else:
                jobs = self.view.jobs if self.view else ()
                for job in jobs:
                    if job.id == entry.target:
                        screen.ask_stop(job)
