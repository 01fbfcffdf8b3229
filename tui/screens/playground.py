"""Playground: one question to two to four models, answers side by side; stored is only what is rated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Vertical
from textual.widgets import Input
from textual.worker import Worker, WorkerState, get_current_worker

from appliance.core.errors import ConfigWrong
from appliance.models.registry import Model
from appliance.serve.client import Reply
from tui.cli.feedback import plain
from tui.cli.tables import paragraphs, wrapped
from tui.endpoint import Line, private_line
from tui.fields import Field
from tui.screens.conversation import Answered, Conversation, Saying, put
from tui.screens.evaluate_form import ask_evaluation
from tui.screens.form import FormWindow
from tui.screens.frame import Looking
from tui.screens.modals import Words
from tui.screens.rating import FIELDS, said
from tui.screens.site import SiteView
from tui.widgets.pane import Pane
from tui.words import reply_words

_PLACES = ("First model", "Second model", "Third model", "Fourth model")
NOBODY = "-"
_TOO_FEW = (
    "Models answer here from GGUF files, and there are fewer than two.\n\nPress 5 for Models: z makes files"
    " of a base or an adapter, i brings in a file."
)


class PlaygroundScreen(Looking):
    """The models one after the other, so that none slows another down."""

    HERE = "evaluate"
    AUTO_FOCUS = "#question"
    HELP = (
        "Every model is asked the same, one after the other, so that none slows another. First token: how"
        " long the first word took. r rates one answer from 1 to 5; only then are question and answer stored,"
        " for a review. b measures the models on all held-out records instead of on one question. Up: the"
        " question before. The same in a shell: cloister chat MODEL MODEL."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"rate": "key.own", "measure": "evaluate.start"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "ask", "Ask", key_display="enter"),
        Binding("r", "rate", "Rate 1-5"),
        Binding("f", "free", "Free text"),
        Binding("b", "measure", "Batch"),
        Binding("up", "before", show=False),
    ]

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.free = False
        self.asked: list[str] = []
        self.replies: list[Reply | None] = [None] * len(self.names)

    def crumbs(self) -> list[str]:
        """Evaluate, then this."""
        return [*super().crumbs(), "Playground"]

    def body(self) -> ComposeResult:
        """A question, and a box for each model."""
        with Vertical(id="body"):
            with Vertical(id="ask", classes="box") as box:
                box.border_title = "Ask them all"
                entry = Input(placeholder="the models are coming up ...", id="question", compact=True)
                entry.cursor_blink = False
                yield entry
            with Grid(id="answers", classes=f"-of-{len(self.names)}"):
                for place, name in enumerate(self.names):
                    yield Pane(name, id=f"answer-{place}")

    def begin(self) -> None:
        """Bring the models up."""
        self._talk = Conversation()
        super().begin()
        self._line = self._hold()

    def draw(self, view: SiteView) -> None:
        """The answers do not come from the site."""

    # --- asking

    @work(thread=True, group="line", exclusive=True, exit_on_error=False)
    def _hold(self) -> None:
        worker = get_current_worker()
        self._talk.run(private_line(self.site, self.names), lambda: worker.is_cancelled, self._ready)

    def _ready(self, line: Line) -> None:
        self.app.call_from_thread(self._up)

    def _up(self) -> None:
        self.query_one("#question", Input).placeholder = "enter: ask"

    @on(Input.Submitted, "#question")
    def submitted(self, event: Input.Submitted) -> None:
        """Have the worker ask each of them."""
        text = event.value.strip()
        if not text or self._line.state not in (WorkerState.PENDING, WorkerState.RUNNING):
            return
        event.input.value = ""
        self.asked.append(text)
        self.replies = [None] * len(self.names)
        self.query_one("#ask").border_title = f"> {plain(text)}"
        for place in range(len(self.names)):
            self._show(place, "...", "")
        free = self.free
        for place, name in enumerate(self.names):
            self._talk.ask(partial(put, self, place, text, model=name, free=free))

    @on(Saying)
    def saying(self, event: Saying) -> None:
        """An answer so far."""
        self._show(event.place, event.text, "")

    @on(Answered)
    def answered(self, event: Answered) -> None:
        """A whole answer, and how fast it was."""
        self.replies[event.place] = event.reply
        self._show(event.place, event.reply.text.strip() or "(nothing)", reply_words(event.reply))
        self.renew_keys()

    def _show(self, place: int, text: str, facts: str) -> None:
        told = plain(text)

        def draw(width: int, height: int) -> str:
            lines = paragraphs(told, width)
            return "\n".join([*wrapped(facts, width=width), "", *lines] if facts else lines)

        self.query_one(f"#answer-{place}", Pane).show(draw)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Without a line nothing can be asked."""
        if event.worker.group == "line" and event.state is WorkerState.ERROR:
            self.query_one("#question", Input).placeholder = "the models are gone: press esc and begin anew"
        super().on_worker_state_changed(event)

    # --- the keys

    def reason(self, action: str) -> str | None:
        """An answer is rated once it is there."""
        if action == "rate" and not any(self.replies):
            return "there is no answer yet"
        return super().reason(action)

    def action_ask(self) -> None:
        """Type a question."""
        self.query_one("#question", Input).focus()

    def action_before(self) -> None:
        """The question before, to change it."""
        if self.asked and isinstance(self.focused, Input):
            self.focused.value = self.asked[-1]
            self.focused.action_end()

    def action_back(self) -> None:
        """Leave the question first, then the screen."""
        if isinstance(self.focused, Input):
            self.set_focus(None)
        else:
            super().action_back()

    def action_free(self) -> None:
        """Free text, or labels where a model answers with labels."""
        self.free = not self.free
        self.app.notify("From now on: " + ("free text." if self.free else "labels, where a model has them."))

    def action_measure(self) -> None:
        """Measure the first of them on all held-out records, with its base and files."""
        if self.view is not None:
            ask_evaluation(self, self.view, self.names[0])

    def action_rate(self) -> None:
        """Say what one of the answers is worth."""
        there = {name: reply for name, reply in zip(self.names, self.replies, strict=True) if reply}

        def answered(found: dict[str, Any] | None) -> None:
            if found is not None:
                told, reply = said(found), there[found["model"]]
                self._talk.ask(lambda line: self._say(line, reply.id, told))

        focused = self.focused.id if isinstance(self.focused, Pane) else None
        chosen = next((n for at, n in enumerate(self.names) if focused == f"answer-{at}"), None)
        which = Field(
            key="model",
            title="Answer of",
            help="Whose answer is rated.",
            kind="choice",
            choices=tuple(there),
            default=chosen if chosen in there else next(iter(there)),
        )
        self.app.push_screen(
            FormWindow("What is it worth?", "Store it", (which, *FIELDS), check=said), answered
        )

    def _say(self, line: Line, answer: str, told: dict[str, Any]) -> None:
        line.say(answer, told)
        self.app.call_from_thread(self.app.notify, "Stored, for a review: on Serve, f lists it.", timeout=5)


def playable(models: Sequence[Model], first: str = "") -> list[str]:
    """Names of files that can answer, newest first; those of the model `first` before all others."""
    files = [model for model in reversed(models) if model.kind == "gguf" and not model.facts.get("embeds")]
    files.sort(key=lambda model: first not in (model.name, model.parent))
    return [model.name for model in files]


def ask_models(screen: Looking, first: str = "") -> None:
    """Ask which models, then open the playground with them."""
    names = playable(screen.view.models if screen.view else (), first)
    if len(names) < 2:
        screen.app.push_screen(Words("Nothing to compare", _TOO_FEW))
        return

    def opened(found: dict[str, Any] | None) -> None:
        if found is not None:
            screen.app.push_screen(PlaygroundScreen(chosen_of(found)))

    fields = tuple(
        Field(
            key=f"model{place}",
            title=title,
            help="A GGUF file of this site. The same question goes to each of them; they come up on a private"
            " endpoint that ends with the playground.",
            kind="choice",
            choices=tuple(names) if place < 2 else (NOBODY, *names),
            default=names[place] if place < 2 else NOBODY,
        )
        for place, title in enumerate(_PLACES[: max(2, min(4, len(names)))])
    )
    screen.app.push_screen(FormWindow("Playground", "Open", fields, check=chosen_of), opened)


def chosen_of(found: dict[str, Any]) -> tuple[str, ...]:
    """The models that were chosen.

    Raises:
        ConfigWrong: one was chosen twice.
    """
    names = tuple(name for name in found.values() if name not in (None, NOBODY))
    if len(set(names)) < len(names):
        raise ConfigWrong("One model is chosen twice.", "Choose another, or - for none.")
    return names
