"""Blind A/B: two answers to one record, which is better? The names are told when all pairs are judged."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import DataTable
from textual.worker import Worker, WorkerState, get_current_worker

from appliance.evaluate.blind import SAME, Comparison, sides
from tui import session_blind
from tui.cli.blind_lines import COLUMNS, cells, result_lines
from tui.cli.feedback import plain
from tui.cli.tables import paragraphs
from tui.endpoint import Line, private_line
from tui.fields import Field
from tui.screens.conversation import Conversation
from tui.screens.frame import Looking
from tui.screens.listing import Listing
from tui.screens.modals import Words
from tui.screens.playground import playable
from tui.screens.site import SiteView
from tui.screens.trying import ask_and_try
from tui.widgets.pane import Pane

_QUIET = 120.0  # seconds after which record text leaves the screen
_NONE = (
    "Two GGUF files and a dataset are needed.\n\nPress 2 for Data to import records, 5 for Models: z makes"
    " files of a base or an adapter."
)


class BlindList(Listing):
    """The comparisons."""

    HERE = "evaluate"
    HELP = (
        "You see a record and two answers, and say which is better; which model gave which is told when all"
        " pairs are judged. Leave whenever you like: it goes on where it stood. Kept are your choices, not"
        " the words. The same in a shell: cloister report blind."
    )
    COLUMNS = COLUMNS
    EMPTY = (
        "No blind comparison yet.\n\nTwo models answer the same records, and you choose without knowing which"
        " is which.\nPress n to begin one."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"new": "evaluate.start", "open": "record.read"}
    BINDINGS: ClassVar[list[BindingType]] = [Binding("n", "new", "New")]

    def crumbs(self) -> list[str]:
        """Evaluate, then this list."""
        return [*super().crumbs(), "Blind A/B"]

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "Blind comparisons"
            yield from self.table()

    def read_more(self, view: SiteView) -> list[Comparison]:
        """The comparisons."""
        return session_blind.comparisons(self.site) if self.site.why_not("report.read") is None else []

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        self.fill([(one.id, cells(one)) for one in self.more])

    @on(DataTable.RowSelected)
    def opened(self) -> None:
        """Go on with the chosen one, or see how it ended."""
        one = next((one for one in self.more or () if one.id == self.chosen), None)
        if one is not None and (one.done or not self.reason("open")):
            self.judge(one)

    def action_new(self) -> None:
        """Ask what is compared, and begin."""
        view = self.view
        names = playable(view.models) if view else []
        if view is None or len(names) < 2 or not view.datasets:
            self.app.push_screen(Words("Nothing to compare", _NONE))
            return
        ask_and_try(self, fields(view, names), self._made, self.judge, title="Blind A/B", label="Begin")

    def _made(self, found: dict[str, Any]) -> Comparison:
        models = (found["first"], found["second"])
        return session_blind.begin(
            self.site, dataset=found["dataset"], split=found["split"], models=models, pairs=found["pairs"]
        )

    def judge(self, one: Comparison) -> None:
        """Go on with one, or show how it ended."""
        self.app.push_screen(BlindScreen(one))


def _broken(text: str, width: int, height: int) -> str:
    return "\n".join(paragraphs(text, width))


def fields(view: SiteView, names: list[str]) -> tuple[Field, ...]:
    """The form of a new comparison."""
    datasets = tuple(dict.fromkeys(one.name for one in reversed(view.datasets)))
    both: dict[str, Any] = {"kind": "choice", "choices": tuple(names)}
    return (
        Field(key="first", title="First model", help="A GGUF file.", default=names[0], **both),
        Field(key="second", title="Second model", help="Another one.", default=names[1], **both),
        Field(
            key="dataset",
            title="Records of",
            help="Both answer records of this dataset.",
            kind="choice",
            choices=datasets,
            default=datasets[0],
        ),
        Field(
            key="split",
            title="Split",
            help="test: records that no training has seen. val: records that trainings were judged by.",
            kind="choice",
            choices=("test", "val"),
            default="test",
        ),
        Field(
            key="pairs",
            title="Pairs",
            help="How many you will judge. 30 to 50 show a clear difference.",
            kind="whole",
            default="20",
            needed=True,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One question and the answers shown as A and B."""

    question: str
    answers: tuple[str, str]


class PairReady(Message):
    """Both have answered, or (no pair) all pairs are judged; `one` is what is kept by now."""

    def __init__(self, one: Comparison, pair: Pair | None) -> None:
        self.one, self.pair = one, pair
        super().__init__()


class BlindScreen(Looking):
    """One comparison: its next pair, or its end."""

    HERE = "evaluate"
    HELP = (
        "a, b: that answer is better. t: neither is. Pairs with the same answer count as ties, unasked. esc"
        " leaves; it goes on where it stood. After two quiet minutes the text is hidden; any key brings it"
        " back. The same in a shell, when it is done: cloister report blind NUMBER."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"better": "evaluate.start"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "better('a')", "A better"),
        Binding("b", "better('b')", "B better"),
        Binding("t", "better('tie')", "Tie"),
    ]

    def __init__(self, one: Comparison) -> None:
        super().__init__()
        self.one = one
        self.pair: Pair | None = None
        self._touched = time.monotonic()

    def crumbs(self) -> list[str]:
        """Evaluate, then this."""
        return [*super().crumbs(), "Blind A/B"]

    def body(self) -> ComposeResult:
        """The question, and both answers."""
        with Vertical(id="body"):
            yield Pane("A/B", id="asked")
            with Horizontal(id="answers"):
                yield Pane("A", id="a")
                yield Pane("B", id="b")

    def begin(self) -> None:
        """Bring both models up, unless it is over."""
        self._talk = Conversation()
        super().begin()
        self.set_interval(5.0, self.hide)
        self.show()
        if not self.one.done:
            self._hold()
            self._talk.ask(self._next)

    # --- asking

    @work(thread=True, group="line", exclusive=True, exit_on_error=False)
    def _hold(self) -> None:
        worker = get_current_worker()
        line = private_line(self.site, self.one.models)
        self._talk.run(line, lambda: worker.is_cancelled, lambda held: None)

    def _next(self, line: Line) -> None:
        """Ask both for the next pair, in the worker; the first asked is not always the same one."""
        one = self.one
        while not one.done:
            place = len(one.choices)
            question = session_blind.question(self.site, one)
            said = {}
            for model in sides(one, place):
                said[model] = "".join(
                    part for part in line.talk(question, model=model, temperature=0) if isinstance(part, str)
                ).strip()
                if get_current_worker().is_cancelled:
                    return
            first, second = (said[model] or "(nothing)" for model in sides(one, place))
            if first != second:
                self.post_message(PairReady(one, Pair(question=question, answers=(first, second))))
                return
            one = session_blind.choose(self.site, one, SAME)
        self.post_message(PairReady(one, None))

    @on(PairReady)
    def ready(self, event: PairReady) -> None:
        """Show a pair, or the end."""
        self.one, self.pair, self._touched = event.one, event.pair, time.monotonic()
        self.show()
        self.renew_keys()

    # --- showing

    def draw(self, view: SiteView) -> None:
        """The pairs do not come from the site."""

    def show(self) -> None:
        """The pair, or the end."""
        asked, answers = self.query_one("#asked", Pane), self.query_one("#answers")
        answers.display = not self.one.done
        if self.one.done:
            asked.border_title = "A/B  all pairs are judged"
            asked.show(lambda width, height: "\n".join(result_lines(self.one, width)))
            return
        number, count = len(self.one.choices) + 1, len(self.one.records)
        asked.border_title = f"A/B  answer pair {number} of {count} (blind)"
        hidden = time.monotonic() - self._touched > _QUIET
        pair = self.pair
        texts = ("the models are answering ...", "", "") if pair is None else (pair.question, *pair.answers)
        for where, text in zip(("#asked", "#a", "#b"), texts, strict=True):
            told = "hidden: press any key" if hidden else plain(text)
            self.query_one(where, Pane).show(partial(_broken, told))

    def hide(self) -> None:
        """Take record text off a screen that nobody looks at."""
        if time.monotonic() - self._touched > _QUIET:
            self.show()

    def on_key(self, event: events.Key) -> None:
        """Somebody is there."""
        hidden = time.monotonic() - self._touched > _QUIET
        self._touched = time.monotonic()
        if hidden:
            event.stop()
            event.prevent_default()
            self.show()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Without the models no pair comes."""
        if event.worker.group == "line" and event.state is WorkerState.ERROR:
            self.query_one("#asked", Pane).show(
                lambda width, height: "The models are gone. Press esc and open it again: nothing is lost."
            )
        super().on_worker_state_changed(event)

    # --- the keys

    def reason(self, action: str) -> str | None:
        """There must be a pair to judge."""
        if action.startswith("better"):
            if self.one.done:
                return "all pairs are judged"
            if self.pair is None:
                return "no pair is there yet"
        return super().reason(action)

    def action_better(self, choice: str) -> None:
        """Keep it, and have the next pair come."""
        one, self.pair = self.one, None
        self.show()
        self.renew_keys()
        self.attempt(lambda: session_blind.choose(self.site, one, choice), self._go_on)

    def _go_on(self, one: Comparison) -> None:
        self.one = one
        self.show()
        if not one.done:
            self._talk.ask(self._next)
