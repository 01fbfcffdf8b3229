"""What every screen has: title, screen line, footer; errors as two lines; help with reasons."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer
from textual.worker import Worker, WorkerState, get_current_worker

from tui.messages import Looked, Planned, Started
from tui.screens.deeds import Deed, do, plan_text, stop_question
from tui.screens.modals import Confirm, Words
from tui.screens.site import JobRow, SiteView, look
from tui.screens.training import ConfirmTraining
from tui.session import Session
from tui.widgets.frame import SCREENS, ScreenLine, TitleLine, site_name

if TYPE_CHECKING:
    from tui.app import Cloister


class Framed(Screen[None]):
    """A screen of ours. `HERE` is its mode, `HELP` what the help screen says besides the keys."""

    HERE = ""
    HELP = ""
    _doing = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", key_display="esc", id="back"),
    ]

    @property
    def site(self) -> Session:
        """The door to the product."""
        return cast("Cloister", self.app).session

    def crumbs(self) -> list[str]:
        """Where we are, from the top."""
        return [self.HERE.capitalize()]

    def compose(self) -> ComposeResult:
        """Frame and body."""
        yield TitleLine(site_name(self.site.home.path), self.site.who)
        yield ScreenLine(self.HERE)
        yield from self.body()
        yield Footer(show_command_palette=False, compact=True)

    def body(self) -> ComposeResult:
        """What is between screen line and footer."""
        yield from ()

    def on_mount(self) -> None:
        """Say where we are."""
        self.query_one(TitleLine).show(self.crumbs())

    def reason(self, action: str) -> str | None:
        """Why the action of a key cannot be done now; None when it can."""
        return None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key that cannot be used now is dim; help says why."""
        return None if self.reason(action) else True

    def help_text(self) -> str:
        """The keys that work here, then what this screen is."""
        lines = []
        for found in self.active_bindings.values():
            if not found.binding.show:
                continue
            shown, what = self.app.get_key_display(found.binding), found.binding.description
            reason = None if found.enabled else self.reason(found.binding.action)
            lines.append(f"{shown:<9} {what}" + (f" (not now: {reason})" if reason else ""))
        screens = ", ".join(f"{key} {name}" for key, _, name in SCREENS)
        lines += [
            f"{'1 2 3 4':<9} Screens: {screens}",
            f"{'tab':<9} Next part; arrows and page keys move in it",
        ]
        return "\n".join([*lines, "", self.HELP])

    def action_back(self) -> None:
        """One step back: the screen below, else Home."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        else:
            self.app.switch_mode("home")

    # --- doing things

    def carry_out(self, deed: Deed) -> None:
        """Do a deed, ask before it, or show the words for it."""
        if self._doing:
            return
        if deed.kind == "open":
            self.open_job(deed.target)
        elif deed.kind == "words":
            self.app.push_screen(Words("Type this in a shell", f"{deed.words}\n\n{_HOW}"))
        elif deed.planned:
            self._begin_plan(deed)
        elif deed.kind == "ask":
            self._ask(deed, deed.question)
        else:
            self._begin(deed)

    def _begin_plan(self, deed: Deed) -> None:
        self.app.notify("Working out the plan ...", timeout=3, markup=False)
        self._doing = True
        self._plan(deed)

    def _ask(self, deed: Deed, question: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._begin(deed)

        self.app.push_screen(Confirm(question, deed.label), answered)

    @work(thread=True, group="do", exit_on_error=False)
    def _plan(self, deed: Deed) -> None:
        self.post_message(Planned(deed, plan_text(self.site, deed, _PLAN_WIDTH)))

    @on(Planned)
    def planned(self, event: Planned) -> None:
        """Show what it would cost, and ask. Another epsilon has a plan of its own, which is shown first."""
        deed, question = event.deed, f"{event.deed.question}\n\n{event.text}"
        if deed.verb != "train":
            self._ask(deed, question)
            return

        def answered(chosen: Deed | None) -> None:
            if chosen == deed:
                self._begin(deed)
            elif chosen is not None:
                self._begin_plan(chosen)

        self.app.push_screen(ConfirmTraining(question, deed), answered)

    def _begin(self, deed: Deed) -> None:
        """One deed at a time: Enter pressed twice starts one job."""
        self._doing = True
        self._do(deed)

    @work(thread=True, group="do", exit_on_error=False)
    def _do(self, deed: Deed) -> None:
        job_id = do(self.site, deed)
        if job_id is not None:
            self.post_message(Started(job_id))

    @on(Started)
    def started(self, event: Started) -> None:
        """Show the job that was started."""
        self.open_job(event.job_id)

    def open_job(self, job_id: str) -> None:
        """Open a job's live view."""
        from tui.screens.job import JobScreen

        self.app.push_screen(JobScreen(job_id, self.HERE))

    def ask_stop(self, job: JobRow) -> None:
        """Stop a job, after a question."""

        def answered(yes: bool | None) -> None:
            if yes:
                self.app.notify(f"Stopping job {job.id} ...", timeout=3, markup=False)
                self._stop(job.id)

        self.app.push_screen(Confirm(stop_question(job), "Stop job"), answered)

    @work(thread=True, group="deed", exit_on_error=False)
    def _stop(self, job_id: str) -> None:
        self.site.stop_job(job_id)

    @work(thread=True, group="deed", exit_on_error=False)
    def resume(self, job_id: str) -> None:
        """Run an ended job again."""
        self.site.resume_job(job_id)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """What went wrong in a worker is told, never swallowed."""
        if event.worker.group == "do" and event.worker.is_finished:
            self._doing = False
        if event.state is WorkerState.ERROR and event.worker.error is not None:
            cast("Cloister", self.app).tell(event.worker.error)


class Looking(Framed):
    """A screen that looks at the site every two seconds, while it is the one shown."""

    EVERY = 2.0
    MOST = 200
    view: SiteView | None = None

    def on_mount(self) -> None:
        """Look at once, then again and again."""
        super().on_mount()
        self._busy = False
        self._timer = self.set_interval(self.EVERY, self.look_again)
        self.look_again()

    def on_screen_resume(self) -> None:
        """Shown again."""
        self._timer.resume()
        self.look_again()

    def on_screen_suspend(self) -> None:
        """Something else is shown."""
        self._timer.pause()

    def look_again(self) -> None:
        """Have a worker look, unless one still does."""
        if not self._busy:
            self._busy = True
            self._look()

    @work(thread=True, group="look", exit_on_error=False)
    def _look(self) -> None:
        try:
            view = look(self.site, time.time(), self.MOST)
            if not get_current_worker().is_cancelled:
                self.post_message(Looked(view))
        finally:
            self._busy = False

    @on(Looked)
    def looked(self, event: Looked) -> None:
        """Draw what was seen."""
        self.view = event.view
        cast("Cloister", self.app).view = event.view
        self.draw(event.view)
        self.refresh_bindings()

    def draw(self, view: SiteView) -> None:
        """Show the view."""


_PLAN_WIDTH = 66  # of a window at 80 columns
_HOW = "Leave with q (running jobs go on), or open a second shell.\nThis screen notices what is done there."
