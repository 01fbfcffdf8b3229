"""One federation, live: rounds and sites at its coordinator, answers and own rules at a site. Drawing 7."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from tui import session_federate
from tui.screens import federation_lines as words
from tui.screens.federation_begin import ask_end, ask_notice
from tui.screens.federation_forms import ask_approve, ask_drop, ask_leave, ask_veto
from tui.screens.federation_stick import ask_carry, ask_start
from tui.screens.listing import Listing
from tui.screens.modals import Confirm
from tui.screens.site import LIVE, SiteView
from tui.widgets.pane import Pane
from tui.widgets.table import Rows

_RESTART = "What is done stays done: it goes on there when it is started again."


class FederationScreen(Listing):
    """What both sides have in common: a table, two boxes, a job."""

    HERE = "sites"
    TABLE = Rows
    STARTING = ""
    BOXES: tuple[str, str] = ("", "Rules")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.federation = name

    def crumbs(self) -> list[str]:
        """Sites, then this one."""
        return [*super().crumbs(), self.federation]

    def body(self) -> ComposeResult:
        """The table; below, two boxes and what was refused."""
        with Vertical(id="body"):
            with Vertical(classes="box", id="upper"):
                yield from self.table()
            with Horizontal(id="lower"):
                yield Pane(self.BOXES[0], id="left")
                yield Pane(self.BOXES[1], id="right")
            yield Pane("Refused", id="refused")

    def read_more(self, view: SiteView) -> dict[str, Any]:
        """How it goes."""
        return session_federate.status(self.site, self.federation)

    @property
    def runs(self) -> bool:
        """Whether its job does."""
        job = (self.more or {}).get("job")
        return bool(job and job["state"] in LIVE)

    def draw(self, view: SiteView) -> None:
        """Fill the boxes."""
        found = self.more
        self.query_one("#upper").border_subtitle = words.job_words(found)[: self.size.width - 6]
        self.query_one("#right", Pane).show(lambda w, h: "\n".join(words.rules_lines(found, w)[:h]))
        refused = self.query_one("#refused", Pane)
        refused.display = bool(found["refused"])
        refused.show(lambda w, h: "\n".join(words.refused_lines(found, w, h)))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Start and stop take turns in the footer."""
        if action == ("start" if self.runs else "stop"):
            return False
        return super().check_action(action, parameters)

    def reason(self, action: str) -> str | None:
        """Most of it depends on whether the job runs."""
        if self.more is None:
            return "it is being read"
        if action == "start" and self.runs:
            return "it runs"
        if action in ("start", "end", "notice") and self.more["agreement"]["ended"]:
            return "the federation has ended"
        if action == "carry" and self.more["agreement"]["secure"]:
            return "secure rounds do not go by stick"
        if action == "stop" and not self.runs:
            return "it does not run"
        if action == "job" and self.more["job"] is None:
            return "it was not started yet"
        return super().reason(action)

    def action_start(self) -> None:
        """Start this home's side, after its preflight."""

        def sure(yes: bool | None) -> None:
            if yes:
                self.begin_job()

        self.app.push_screen(Confirm(self.STARTING.format(name=self.federation), "Start"), sure)

    def begin_job(self, carried: bool = False) -> None:
        """Start the job, and show it."""

        def work() -> str:
            return session_federate.start(
                self.site, self.federation, host=_ANY, port=None, model=None, carried=carried
            )

        self.attempt(work, self.open_job)

    def action_stop(self) -> None:
        """Stop the job, after a question."""

        def sure(yes: bool | None) -> None:
            if yes:
                self.attempt(lambda: self.site.stop_job(self.more["job"]["id"]), lambda _: self.look_again())

        self.app.push_screen(Confirm(f"Stop {self.federation} here?\n\n{_RESTART}", "Stop"), sure)

    def action_job(self) -> None:
        """Its job and log."""
        self.open_job(self.more["job"]["id"])


_ANY = "0.0.0.0"  # noqa: S104 - as the command: the gateway lets in nobody without a certificate


class CoordinatorScreen(FederationScreen):
    """Rounds and sites."""

    HELP = (
        "TIME: how long the site's last update took. LAST: what it did last, or why it was not taken. Loss:"
        " of the model that a round began with, on the sites' own records. What a site has spent only"
        " the site knows; the most was agreed. The same in a shell: cloister federate --help."
    )
    COLUMNS = words.SITES
    EMPTY = "No sites yet.\n\nA site sends a request and reads its words out. Press n to let it in."
    BOXES = ("Global model", "Rules")
    STARTING = (
        "Start the rounds of {name}?\n\nA gateway listens on the port of the agreement, on every address of"
        " this machine; it lets in nobody without a certificate of this federation."
    )
    RIGHTS: ClassVar[dict[str, str]] = {
        "start": "federate.coordinate",
        "stop": "job.stop",
        "approve": "federate.enrol",
        "drop": "federate.drop",
        "carry": "federate.carry",
        "end": "federate.coordinate",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start"),
        Binding("n", "approve", "New site"),
        Binding("d", "drop", "Drop"),
        Binding("x", "stop", "Stop"),
        Binding("e", "carry", "Carry", tooltip="Write a site's round to a stick, bring its answer in"),
        Binding("f", "end", "Finish", show=False, tooltip="End it for all its sites"),
        Binding("l", "job", "Log", show=False, tooltip="Its job and log"),
    ]

    def draw(self, view: SiteView) -> None:
        """The sites, and how the model goes."""
        found = self.more
        self.fill([(one["site"], words.site_cells(one)) for one in found["sites"]])
        self.query_one("#upper").border_title = words.round_title(found, datetime.now(UTC))
        self.query_one("#left", Pane).show(lambda w, h: "\n".join(words.model_lines(found, w, h)))
        super().draw(view)

    def reason(self, action: str) -> str | None:
        """A site that is out cannot be dropped again."""
        if action == "drop" and self.more is not None:
            one = next((one for one in self.more["sites"] if one["site"] == self.chosen), None)
            if one is None:
                return "no site is chosen"
            if one["state"] != "in":
                return f"{one['site']} is {one['state']}"
        return super().reason(action)

    def action_approve(self) -> None:
        """Let a site in."""
        ask_approve(self)

    def action_carry(self) -> None:
        """Rounds by stick, those of the chosen site."""
        write = any(one["site"] == self.chosen and one["state"] == "in" for one in self.more["sites"])
        ask_carry(self, self.federation, self.chosen, self.look_again, write=write)

    def action_end(self) -> None:
        """End it for all its sites."""
        done, rounds = len(self.more["rounds"]), self.more["agreement"]["rounds"]
        ask_end(self, self.federation, done=done, rounds=rounds, then=self.look_again)

    def action_drop(self) -> None:
        """End the chosen site's part."""
        if self.chosen is not None:
            ask_drop(self, self.federation, self.chosen, self.look_again)


_OF_MEMBERS = ("start", "pause", "veto", "leave", "carry")


class SiteScreen(FederationScreen):
    """This site's answers and rules."""

    HELP = (
        "ANSWER: sent, or why this site did not answer. Its own rules stand above what the coordinator asks."
        " Pause: it answers no round until it is taken back. Veto: one round, or the model. Leave: for good."
        " The same in a shell: cloister federate --help."
    )
    COLUMNS = words.ANSWERS
    EMPTY = (
        "No round was asked of this site yet.\n\nPress s to start: it then answers the coordinator's rounds."
    )
    BOXES = ("This site", "Agreed")
    STARTING = (
        "Start this site's part in {name}?\n\nIt answers rounds as its own rules allow, and every round is"
        " paid from the privacy budget of its records."
    )
    RIGHTS: ClassVar[dict[str, str]] = {
        "start": "federate.take-part",
        "stop": "job.stop",
        "pause": "federate.veto",
        "veto": "federate.veto",
        "leave": "federate.veto",
        "carry": "federate.carry",
        "notice": "federate.veto",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start"),
        Binding("p", "pause", "Pause"),
        Binding("v", "veto", "Veto"),
        Binding("d", "leave", "Leave", show=False, tooltip="Give the seat up for good"),
        Binding("x", "stop", "Stop"),
        Binding("e", "carry", "Carry", tooltip="Bring a round in from a stick, write the answer"),
        Binding("n", "notice", "Notice", show=False, tooltip="Take the notice of the federation's end"),
        Binding("l", "job", "Log", show=False, tooltip="Its job and log"),
    ]

    def draw(self, view: SiteView) -> None:
        """The answers, newest first, and what is allowed here."""
        found = self.more
        rows = [(str(place), words.answer_cells(one)) for place, one in enumerate(found["answers"])]
        self.fill(rows[::-1])
        self.query_one("#upper").border_title = f"Rounds answered by {found['site']}"
        self.query_one("#left", Pane).show(lambda w, h: "\n".join(words.own_lines(found, w)[:h]))
        super().draw(view)

    def reason(self, action: str) -> str | None:
        """Who has left answers nothing."""
        if action in _OF_MEMBERS and self.more is not None and self.more["left"]:
            return "this site has left"
        return super().reason(action)

    def action_start(self) -> None:
        """Start, over the network or by stick where that can be."""
        if self.more["agreement"]["secure"]:
            super().action_start()
        else:
            ask_start(self, self.STARTING.format(name=self.federation), self.begin_job)

    def action_carry(self) -> None:
        """Rounds by stick."""
        ask_carry(self, self.federation, None, self.look_again, write=True)

    def action_notice(self) -> None:
        """Take the notice of its end."""
        ask_notice(self, self.federation, self.look_again)

    def action_pause(self) -> None:
        """Answer no round, or answer again."""
        paused = not self.more["policy"]["paused"]

        def told(_: object) -> None:
            said = "answers no round until p is pressed again" if paused else "answers rounds again"
            self.app.notify(f"This site {said}.", markup=False)
            self.look_again()

        self.attempt(lambda: session_federate.pause(self.site, self.federation, paused=paused), told)

    def action_veto(self) -> None:
        """Refuse a round or the model."""
        ask_veto(self, self.federation, self.look_again)

    def action_leave(self) -> None:
        """Give the seat up."""
        ask_leave(self, self.federation, self.look_again)
