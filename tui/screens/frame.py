"""What every screen has: title, screen line, footer; errors as two lines; help with reasons."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer
from textual.worker import Worker, WorkerState, get_current_worker

from appliance.core.errors import ApplianceError, NeedsApproval
from appliance.security.people.guard import Actor
from tui.messages import Allowed, Did, Looked
from tui.screens.deeds import Deed, do, plan_text, stop_question
from tui.screens.entry import Entry
from tui.screens.modals import Confirm, Words
from tui.screens.site import JobRow, SiteView, look
from tui.screens.training import ConfirmTraining
from tui.session import Session
from tui.widgets.frame import SCREENS, ScreenLine, TitleLine
from tui.words import waiting_text

if TYPE_CHECKING:
    from tui.app import Cloister


T = TypeVar("T")


class Framed(Screen[None]):
    """A screen of ours. `HERE` is its mode, `HELP` what the help screen says besides the keys.

    `RIGHTS` gives for the action of a key what it is called in the table of rights: the key is dim for who
    may not. `PALETTE` is what the command palette offers of this screen. Textual runs the `on_mount` of
    every class, so what a screen does when it begins is in `begin`.
    """

    HERE = ""
    HELP = ""
    RIGHTS: ClassVar[dict[str, str]] = {}
    PALETTE: ClassVar[tuple[Entry, ...]] = ()
    refused: Mapping[str, str] = MappingProxyType({})
    _doing = False
    _stopping: Confirm | None = None
    _keys: Mapping[str, bool] = MappingProxyType({})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", key_display="esc", id="back"),
        Binding("m", "maximise", "Maximise", show=False, tooltip="One part as large as the screen, and back"),
    ]
    ALLOW_IN_MAXIMIZED_VIEW = "#title, Footer"

    @property
    def site(self) -> Session:
        """The door to the product."""
        return cast("Cloister", self.app).session

    def crumbs(self) -> list[str]:
        """Where we are, from the top."""
        return [self.HERE.capitalize()]

    def compose(self) -> ComposeResult:
        """Frame and body."""
        yield TitleLine(cast("Cloister", self.app).site_name, person(self.site.actor))
        yield ScreenLine(self.HERE)
        yield from self.body()
        yield Footer(show_command_palette=False, compact=True)

    def body(self) -> ComposeResult:
        """What is between screen line and footer."""
        yield from ()

    def on_mount(self) -> None:
        """Say where we are, and begin."""
        self.query_one(TitleLine).show(self.crumbs())
        self.begin()

    def begin(self) -> None:
        """What a screen does once it is there."""
        self._ask_rights()

    def reason(self, action: str) -> str | None:
        """Why the action of a key cannot be done now; None when it can."""
        return self.refused.get(action.partition("(")[0])

    def rights(self) -> dict[str, str]:
        """Which of the actions of `RIGHTS` this person may not do, and why; from a worker."""
        told = {action: self.site.why_not(named) for action, named in self.RIGHTS.items()}
        return {action: why for action, why in told.items() if why}

    @work(thread=True, group="rights", exit_on_error=False)
    def _ask_rights(self) -> None:
        if self.RIGHTS:
            self.post_message(Allowed(self.rights()))

    @on(Allowed)
    def allowed(self, event: Allowed) -> None:
        """Dim the keys of what this person may not do."""
        self.refused = event.refused
        self.renew_keys()

    def renew_keys(self) -> None:
        """Draw the footer again where a key came, went, or is dim now; each drawing goes over the line."""
        keys = {key: found.enabled for key, found in self.active_bindings.items()}
        if keys != self._keys:
            self._keys = keys
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key that cannot be used now is dim; help says why."""
        return None if self.reason(action) else True

    def help_text(self) -> str:
        """What this screen is, then the keys that work here."""
        lines = []
        for found in self.active_bindings.values():
            if not (found.binding.show or found.binding.tooltip):
                continue
            shown = self.app.get_key_display(found.binding)
            what = ": ".join(filter(None, (found.binding.description, found.binding.tooltip)))
            reason = None if found.enabled else self.reason(found.binding.action)
            line = f"{shown:<9} {what}" + (f" (not now: {reason})" if reason else "")
            if line not in lines:
                lines.append(line)
        screens = ", ".join(f"{key} {name}" for key, _, name in SCREENS)
        lines += [
            f"{'1 to 9':<9} Screens: {screens}",
            f"{'j':<9} Jobs: what runs and what ran",
            f"{',':<9} Settings: theme, characters",
            f"{'ctrl+l':<9} Draw the screen again, where something else has written on it",
            f"{'tab':<9} Next part; arrows and page keys move in it, m makes it large",
        ]
        return "\n".join([self.HELP, "", *lines])

    def action_back(self) -> None:
        """One step back: the screen below, else Home."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        else:
            self.app.switch_mode("home")

    def action_maximise(self) -> None:
        """Make the part with the focus as large as the screen, or small again; esc does that too."""
        if self.maximized is not None:
            self.minimize()
        elif self.focused is not None:
            boxes = (
                one for one in self.focused.ancestors if isinstance(one, Widget) and one.has_class("box")
            )
            self.maximized = next(boxes, self.focused)
        else:
            self.app.notify("tab goes to a part first; m makes it large.", timeout=4, markup=False)

    # --- doing things

    def attempt(self, work: Callable[[], T], then: Callable[[T], object] | None = None) -> None:
        """Do `work` in a worker and give `then` what it returned; trouble is told.

        One at a time: Enter pressed twice starts one job.
        """
        if not self._doing:
            self._doing = True
            self._attempt(work, then)

    @work(thread=True, group="do", exit_on_error=False)
    def _attempt(self, work: Callable[[], Any], then: Callable[[Any], object] | None) -> None:
        self.post_message(Did(work(), then))

    @on(Did)
    def did(self, event: Did) -> None:
        """Go on with what a worker found."""
        self._doing = False
        if event.then is not None:
            event.then(event.result)

    def carry_out(self, deed: Deed) -> None:
        """Do a deed, ask before it, or show the words for it."""
        if self._doing:
            return
        if deed.kind == "open":
            self.open_job(deed.target)
        elif deed.kind == "form":
            self.open_form(deed)
        elif deed.kind == "words":
            self.app.push_screen(Words("Type this in a shell", f"{deed.words}\n\n{_HOW}"))
        elif deed.planned:
            self.plan(deed)
        elif deed.kind == "ask":
            self._ask(deed, deed.question)
        else:
            self._begin(deed)

    def open_form(self, deed: Deed) -> None:
        """Ask what a deed needs."""
        from tui.screens.asking import open_form

        open_form(self, deed)

    def plan(self, deed: Deed, otherwise: Callable[[ApplianceError], object] | None = None) -> None:
        """Show what a deed would do and cost, and ask; `otherwise` is given why there is no plan."""

        def work() -> str | ApplianceError:
            try:
                return plan_text(self.site, deed, _PLAN_WIDTH)
            except ApplianceError as problem:
                if otherwise is None:
                    raise
                return problem

        def then(told: str | ApplianceError) -> None:
            if isinstance(told, str):
                self.show_plan(deed, told)
            elif otherwise is not None:
                otherwise(told)

        self.app.notify("Working out the plan ...", timeout=3, markup=False)
        self.attempt(work, then)

    def _ask(self, deed: Deed, question: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._begin(deed)

        self.app.push_screen(Confirm(question, deed.label), answered)

    def show_plan(self, deed: Deed, text: str) -> None:
        """Show what it would cost, and ask. Another epsilon has a plan of its own, which is shown first."""
        question = f"{deed.question}\n\n{text}"
        if deed.verb != "train" or deed.spec["settings"].get("private") is False:
            self._ask(deed, question)
            return

        def answered(chosen: Deed | None) -> None:
            if chosen == deed:
                self._begin(deed)
            elif chosen is not None:
                self.plan(chosen)

        self.app.push_screen(ConfirmTraining(question, deed), answered)

    def _begin(self, deed: Deed) -> None:
        self.attempt(lambda: do(self.site, deed), self.show_job)

    def show_job(self, job_id: str | None) -> None:
        """Show the job that was started, if one was."""
        if job_id is not None:
            self.open_job(job_id)

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

        self._stopping = Confirm(stop_question(job), "Stop job")
        self.app.push_screen(self._stopping, answered)

    def ask_stop_no_more(self) -> None:
        """The job ended by itself while that was asked."""
        if self._stopping is not None and self.app.screen is self._stopping:
            self._stopping.dismiss(False)
            self.app.notify("It ended before it was stopped.", timeout=4, markup=False)

    @work(thread=True, group="deed", exit_on_error=False)
    def _stop(self, job_id: str) -> None:
        self.site.stop_job(job_id)

    @work(thread=True, group="deed", exit_on_error=False)
    def resume(self, job_id: str) -> None:
        """Run an ended job again."""
        self.site.resume_job(job_id)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """What went wrong in a worker is told, never swallowed; what two people must agree to is no error."""
        if event.worker.group == "do" and event.state in (WorkerState.ERROR, WorkerState.CANCELLED):
            self._doing = False
        problem = event.worker.error if event.state is WorkerState.ERROR else None
        if isinstance(problem, NeedsApproval):
            self.app.push_screen(Words("Two people must agree", waiting_text(problem)))
        elif problem is not None:
            cast("Cloister", self.app).tell(problem)


class Looking(Framed):
    """A screen that looks at the site every two seconds, while it is the one shown."""

    EVERY = 2.0
    MOST = 200
    view: SiteView | None = None
    more: Any = None

    def begin(self) -> None:
        """Look at once, then again and again."""
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

    def read_more(self, view: SiteView) -> Any:
        """What this screen shows besides the view; from a worker, kept as `more`."""
        return None

    @work(thread=True, group="look", exit_on_error=False)
    def _look(self) -> None:
        try:
            view = look(self.site, time.time(), self.MOST)
            more, refused = self.read_more(view), self.rights()
            if not get_current_worker().is_cancelled:
                self.post_message(Looked(view, more, refused))
        finally:
            self._busy = False

    @on(Looked)
    def looked(self, event: Looked) -> None:
        """Draw what was seen."""
        self.view, self.more, self.refused = event.view, event.more, event.refused
        self.draw(event.view)
        self.renew_keys()

    def draw(self, view: SiteView) -> None:
        """Show the view."""


def person(actor: Actor) -> str:
    """Who sits here, with their role; or that they look only."""
    what = "looks only" if actor.look else actor.role
    return f"{actor.person} ({what})" if what else actor.person


_PLAN_WIDTH = 66  # of a window at 80 columns
_HOW = "Leave with q (running jobs go on), or open a second shell.\nThis screen notices what is done there."
