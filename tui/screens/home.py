"""Home: the one next step, the way from data to answer, this machine, jobs, what needs an eye."""

from __future__ import annotations

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.worker import get_current_worker

from tui import session_people
from tui.messages import BudgetsRead
from tui.screens import home_lines
from tui.screens.budgets import read_budgets
from tui.screens.deeds import Deed, deed_of
from tui.screens.entry import Entry
from tui.screens.frame import Looking
from tui.screens.machine import Machine, read_machine
from tui.screens.site import LIVE, SiteView
from tui.widgets.pane import Draw, Pane


class HomeScreen(Looking):
    """The first screen."""

    HERE = "home"
    MOST = 50
    PALETTE: ClassVar[tuple[Entry, ...]] = (Entry(words="home", help="Next step, machine, newest jobs"),)
    HELP = (
        "Home names one next step; Enter does it, or asks what it needs from you first."
        " The way from data to answer: [x] there, [>] running, [ ] not yet."
        " Jobs are processes of their own: they go on when you leave or the line drops."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "go", "Go", key_display="enter", tooltip="Do the next step"),
        Binding("q", "app.leave", "Leave (jobs go on)"),
    ]

    def body(self) -> ComposeResult:
        """Five panes."""
        with VerticalScroll(id="body"):
            yield Pane("Next step", id="step")
            with Horizontal(id="upper"):
                yield Pane("From data to answer", id="way")
                yield Pane("Machine", id="machine")
            with Horizontal(id="lower"):
                yield Pane("Jobs", id="jobs")
                yield Pane("Watch", id="watch")

    def begin(self) -> None:
        """Begin to look."""
        self.deed: Deed | None = None
        self._machine: Machine | None = None
        self._budgets: list[str] = []
        self._budgets_for: object = None
        super().begin()
        for pane in self.query(Pane):
            pane.show(lambda width, height: "reading ...")
        self.query_one("#body").can_focus = False

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is no way back from here, so that key is not shown."""
        return False if action == "back" else super().check_action(action, parameters)

    def reason(self, action: str) -> str | None:
        """Enter works from the first look on."""
        return "still reading the site" if action == "go" and self.deed is None else None

    def read_more(self, view: SiteView) -> list[str]:
        """What waits for people: emergencies to be reviewed, requests to be answered."""
        waiting = [asked for asked in session_people.requests(self.site) if asked.state == "pending"]
        return home_lines.waiting_lines(session_people.alarms(self.site), len(waiting))

    def draw(self, view: SiteView) -> None:
        """Fill the panes."""
        deed = self.deed = deed_of(view.step)
        self._machine = read_machine(self.site.home.path)
        self._ask_budgets(view)
        self._show("step", lambda width, height: home_lines.step_text(view.step, deed.key, width))
        self._show("way", lambda width, height: home_lines.way_text(view, width))
        self._show("machine", lambda width, height: home_lines.machine_text(self._machine, width))
        self._show("jobs", lambda width, height: home_lines.jobs_text(view.jobs, width, height))
        self._show(
            "watch", lambda width, height: home_lines.watch_text(view, self.more or [], self._budgets, width)
        )

    def _show(self, pane: str, draw: Draw) -> None:
        self.query_one(f"#{pane}", Pane).show(draw)

    def action_go(self) -> None:
        """Do the next step."""
        if self.deed is not None:
            self.carry_out(self.deed)

    def _ask_budgets(self, view: SiteView) -> None:
        """Budgets change with training; reading them takes seconds, so it is done when one has ended."""
        trained = {job.id: job.state for job in view.jobs if job.kind == "train"}
        if any(state in LIVE for state in trained.values()):
            self._budgets_for = None
            self._budgets = [f"budget {name}: in use by a job" for name in view.budgets]
            return
        if self._budgets_for == (view.budgets, trained):
            return
        self._budgets_for = (view.budgets, trained)
        self._budgets = [f"budget {name}: reading ..." for name in view.budgets]
        if view.budgets:
            self._read_budgets()

    @work(thread=True, group="budgets", exclusive=True, exit_on_error=False)
    def _read_budgets(self) -> None:
        worker = get_current_worker()
        lines = read_budgets(self.site.home.path, lambda: worker.is_cancelled)
        if not worker.is_cancelled:
            self.post_message(BudgetsRead(lines))

    @on(BudgetsRead)
    def budgets_read(self, event: BudgetsRead) -> None:
        """Show what is left."""
        self._budgets = event.lines
        self.query_one("#watch", Pane).redraw()
