"""Serve: the running endpoint, what it did in the last hour, and a line to try it. Drawing 6."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Static
from textual.worker import Worker, WorkerState, get_current_worker

from appliance.serve.client import Reply
from tui.cli.feedback import plain
from tui.endpoint import Line, line_to
from tui.screens import serve_lines
from tui.screens.conversation import Answered, Conversation, Saying, put
from tui.screens.entry import Entry
from tui.screens.feedback import FeedbackScreen
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.rating import FIELDS, said
from tui.screens.serve_form import ask_serving
from tui.screens.serve_keys import KeysScreen
from tui.screens.serve_lines import Hour, last_hour
from tui.screens.serve_routes import RoutesScreen
from tui.screens.site import JobRow, SiteView
from tui.widgets.pane import Pane
from tui.words import reply_words

_EMPTY = (
    "No endpoint runs.\n\nAn endpoint answers questions with a model that has passed its gate."
    "\nPress n to start one, or 1 for Home: it names the next step."
    "\n\nk: who may ask (API keys)   r: routes   f: feedback"
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A running endpoint's figures, and what it did lately."""

    figures: dict[str, Any]
    hour: Hour


_KEPT = "enter asks the next; not stored unless you press esc, then f"


class ServeScreen(Looking):
    """The chosen endpoint."""

    HERE = "serve"
    AUTO_FOCUS = ""
    HELP = (
        "An endpoint answers the OpenAI API and a web page for whoever has a key. Slots: answers at once."
        " Queue: questions that wait for one. p50, p95: half, and nearly all, first words came within that."
        " What you try here is not stored unless you press esc, then f. The same in a shell: cloister serve"
        " MODEL, serve status, chat MODEL, key, route, feedback, job stop."
    )
    RIGHTS: ClassVar[dict[str, str]] = {
        "start": "serve.start",
        "stop": "job.stop",
        "ask": "key.own",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "ask", "Ask", key_display="enter"),
        Binding("n", "start", "Start"),
        Binding("s", "stop", "Stop"),
        Binding("k", "keys", "Keys"),
        Binding("r", "routes", "Routes", show=False, tooltip="A/B splits; small model first"),
        Binding("f", "feedback", "Feedback"),
        Binding("e", "other", "Other", show=False, tooltip="Show the next of several endpoints"),
        Binding("o", "job", "Job", show=False, tooltip="The endpoint's job and its log"),
    ]
    PALETTE: ClassVar[tuple[Entry, ...]] = (
        Entry(words="serve", help="Bring up an endpoint", action="start"),
        Entry(words="serve status", help="The running endpoint and its figures"),
        Entry(words="chat", help="Ask the served model something", action="ask"),
        Entry(words="key list", help="Who may ask the endpoint", action="keys"),
        Entry(words="route list", help="A/B splits, small model first", action="routes"),
        Entry(words="feedback list", help="What people said of answers", action="feedback_list"),
    )
    job_id = ""
    answer: Reply | None = None
    question = ""
    _line: Worker[None] | None = None

    def body(self) -> ComposeResult:
        """Engine and last hour, routes and rate, the line to try it."""
        yield Static(_EMPTY, id="empty", markup=False)
        with Vertical(id="body"):
            with Horizontal(id="upper"):
                yield Pane("Engine", id="engine")
                yield Pane("Last hour", id="hour")
            with Horizontal(id="middle"):
                yield Pane("Routes", id="parts")
                yield Pane("Requests/min", id="rate")
            with VerticalScroll(id="try", classes="box", can_focus=False) as box:
                box.border_title = "Try it"
                entry = Input(placeholder="enter: ask something", id="question", compact=True)
                entry.cursor_blink = False
                yield entry
                yield Static("", id="answer", markup=False)
                yield Static("", id="facts", markup=False)

    def begin(self) -> None:
        """Nothing is known yet."""
        self._talk = Conversation()
        self.query_one("#body").display = self.query_one("#empty").display = False
        super().begin()

    # --- looking

    def read_more(self, view: SiteView) -> list[Seen]:
        """The running endpoints."""
        found = self.site.endpoints()
        now = time.time()
        return [Seen(figures=one, hour=last_hour(self.site.job(one["job"]).events, now)) for one in found]

    @property
    def seen(self) -> Seen | None:
        """The endpoint that is shown: the one chosen, else the newest."""
        every: list[Seen] = self.more or []
        return next((one for one in every if one.figures["job"] == self.job_id), next(iter(every), None))

    @property
    def job(self) -> JobRow | None:
        """Its job."""
        seen = self.seen
        jobs = self.view.jobs if self.view and seen else ()
        return next((job for job in jobs if seen and job.id == seen.figures["job"]), None)

    def draw(self, view: SiteView) -> None:
        """Fill the boxes."""
        seen = self.seen
        self.query_one("#empty").display = seen is None
        self.query_one("#body").display = seen is not None
        if seen is None:
            return
        one, hour, now = seen.figures, seen.hour, serve_lines.clock_of(time.time())
        count = len(self.more)
        which = f" {self.more.index(seen) + 1} of {count} (e)" if count > 1 else ""
        self.query_one("#engine", Pane).border_title = f"Engine{which}  UP {serve_lines.up_words(hour.up)}"
        self._fill("#engine", lambda width, height: serve_lines.engine_lines(one, width))
        self._fill("#hour", lambda width, height: serve_lines.hour_lines(one, hour, width))
        self._fill("#parts", lambda width, height: serve_lines.route_lines(one, width)[: max(1, height)])
        self._fill("#rate", lambda width, height: serve_lines.rate_lines(hour, width, height, now))

    def _fill(self, where: str, lines: Callable[[int, int], list[str]]) -> None:
        self.query_one(where, Pane).show(lambda width, height: "\n".join(lines(width, height)))

    def reason(self, action: str) -> str | None:
        """Most of it needs a running endpoint."""
        if action in ("stop", "ask", "other", "job") and self.seen is None:
            return "no endpoint runs"
        if action == "other" and len(self.more) < 2:
            return "only one endpoint runs"
        return super().reason(action)

    # --- asking

    def action_ask(self) -> None:
        """Type a question."""
        self.query_one("#question", Input).focus()

    def action_back(self) -> None:
        """Leave the question first, then the screen."""
        if isinstance(self.focused, Input):
            self.set_focus(None)
        else:
            super().action_back()

    @on(Input.Submitted, "#question")
    def asked(self, event: Input.Submitted) -> None:
        """Have a worker ask it."""
        text, seen = event.value.strip(), self.seen
        if not text or seen is None:
            return
        event.input.value = ""
        self.question, self.answer = text, None
        self.show_answer("...", "")
        if self._line is None or self._line.state not in (WorkerState.PENDING, WorkerState.RUNNING):
            self._line = self._hold(str(seen.figures["job"]))
        self._talk.ask(partial(put, self, 0, text))

    @work(thread=True, group="line", exclusive=True, exit_on_error=False)
    def _hold(self, job: str) -> None:
        worker = get_current_worker()
        self._talk.run(line_to(self.site, job), lambda: worker.is_cancelled, lambda line: None)

    @on(Saying)
    def saying(self, event: Saying) -> None:
        """The answer so far."""
        self.show_answer(event.text, "")

    @on(Answered)
    def answered(self, event: Answered) -> None:
        """The whole answer, and how fast it was."""
        self.answer = event.reply
        cited = "".join(f"\n[{at}] {one.get('address', '')}" for at, one in enumerate(event.reply.cited, 1))
        note = f"{reply_words(event.reply)}{cited}\n{_KEPT}"
        self.show_answer(event.reply.text.strip() or "(nothing)", note)
        self.refresh_bindings()

    def show_answer(self, text: str, facts: str) -> None:
        """Question and answer."""
        self.query_one("#answer", Static).update(f"> {plain(self.question)}\n{plain(text)}")
        self.query_one("#facts", Static).update(facts)
        self.query_one("#try").scroll_end(animate=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A line that broke leaves its two lines where the answer would be."""
        if event.worker.group == "line" and event.state is WorkerState.ERROR:
            self.show_answer("(no answer)", "")
        super().on_worker_state_changed(event)

    # --- the other keys

    def action_feedback(self) -> None:
        """Say what the answer is worth; without one, what others said."""
        answer = self.answer
        if answer is None or not answer.id or self._line is None:
            self.action_feedback_list()
            return

        def answered(found: dict[str, Any] | None) -> None:
            if found is not None:
                told = said(found)
                self._talk.ask(lambda line: self._say(line, answer.id, told))

        self.app.push_screen(FormWindow("What is it worth?", "Store it", FIELDS, check=said), answered)

    def _say(self, line: Line, answer: str, told: dict[str, Any]) -> None:
        line.say(answer, told)
        self.app.call_from_thread(self.app.notify, "Stored, for a review: f lists it.", timeout=5)
        self.answer = None

    def action_feedback_list(self) -> None:
        """What people said of answers."""
        self.app.push_screen(FeedbackScreen())

    def action_start(self) -> None:
        """Ask how to serve, and do it."""
        if self.view is not None:
            ask_serving(self, self.view)

    def action_stop(self) -> None:
        """Stop the endpoint, after a question."""
        if self.job is not None:
            self.ask_stop(self.job)

    def action_keys(self) -> None:
        """Who may ask."""
        self.app.push_screen(KeysScreen())

    def action_routes(self) -> None:
        """Names behind which one of two models answers."""
        self.app.push_screen(RoutesScreen())

    def action_other(self) -> None:
        """The next endpoint; the line to the one before is hung up."""
        every = [one.figures["job"] for one in self.more]
        if self.seen is not None and self.view is not None:
            self.job_id = every[(every.index(self.seen.figures["job"]) + 1) % len(every)]
            self.workers.cancel_group(self, "line")
            self._line, self._talk = None, Conversation()
            self.draw(self.view)

    def action_job(self) -> None:
        """The endpoint's job."""
        if self.seen is not None:
            self.open_job(self.seen.figures["job"])
