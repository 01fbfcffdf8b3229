"""A window with a form: one line a field, what the field means below, Cancel and the deed.

Arrows up and down (and tab) go from field to field, Enter in a field goes to the next one; only Enter on
the button sends it. What is wrong is told in the window, and nothing that was typed is lost: Enter on Cancel,
where Enter in the last field leads, first says so when something was typed. A path is typed or looked for:
ctrl+o, or Enter while there is none yet where one is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from appliance.core.errors import ApplianceError
from tui.fields import Field, answers, asked, by_title
from tui.screens.modals import Asking, Choice
from tui.screens.picker import PickPath, start_of
from tui.widgets.pick import Pick

Check = Callable[[dict[str, Any]], object]


class Lines(VerticalScroll, can_focus=False, inherit_bindings=False):
    """Scrolls with the field in hand; the arrows go from field to field, also where not all have room."""


class FormWindow(Asking[dict[str, Any] | None]):
    """Ends with the answers by key, or None. `check` may refuse them by an ApplianceError before it ends;
    `leave` is the word for not going on."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("ctrl+o", "look", show=False),
    ]

    def __init__(
        self,
        title: str,
        label: str,
        fields: Sequence[Field],
        *,
        words: str = "",
        given: Mapping[str, str] | None = None,
        check: Check | None = None,
        leave: str = "Cancel",
    ) -> None:
        super().__init__()
        self._leave = leave
        self._title, self._label, self._words = title, label, words
        self._fields, self._check = tuple(fields), check
        self._given = dict(given or {})
        self._begun: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        """The words, the fields, what the one in hand means, the buttons."""
        with Vertical(classes="window") as window:
            window.border_title = self._title
            with Lines(id="text"):
                if self._words:
                    yield Static(by_title(self._fields, self._words), markup=False)
                for field in self._fields:
                    with Horizontal(classes="field"):
                        yield Static(field.title, classes="title", markup=False)
                        yield self._entry(field)
            yield Static("", id="help", markup=False)
            yield Static("", id="wrong", markup=False)
            with Horizontal(classes="buttons"):
                yield Choice(self._leave, id="cancel")
                yield Choice(self._label, id="do")
            yield Static("", id="keys", classes="keys", markup=False)

    def on_mount(self) -> None:
        """Begin at the first field."""
        self.show_asked()
        self._begun = self.typed()
        self.query_one(f"#field-{self._fields[0].key}").focus()

    @on(Pick.Changed)
    def show_asked(self) -> None:
        """Show the fields that are asked with the choices of now, and the keys that they need."""
        now = asked(self._fields, self.typed())
        wanted = {field.key for field in now}
        keys = _KEYS_WITH_PATHS if any(field.kind == "path" for field in now) else _KEYS
        self.query_one("#keys", Static).update(keys.format(leave=self._leave.lower()))
        for field in self._fields:
            line = self.query_one(f"#field-{field.key}").parent
            if isinstance(line, Horizontal):
                line.display = field.key in wanted

    def _entry(self, field: Field) -> Widget:
        value = self._given.get(field.key, field.default)
        if field.kind in ("choice", "yes"):
            choices = field.choices if field.kind == "choice" else ("no", "yes")
            return Pick(choices, value, id=f"field-{field.key}")
        hint = "" if field.needed else "(may stay empty)"
        if field.kind == "path":
            hint = "enter looks for it" if field.needed else "(may stay empty; ctrl+o looks for it)"
        entry = Input(
            value,
            placeholder=hint,
            password=field.kind == "secret",
            id=f"field-{field.key}",
            compact=True,
        )
        entry.cursor_blink = False
        return entry

    def typed(self) -> dict[str, str]:
        """What stands in the fields now, by key."""
        found = {}
        for field in self._fields:
            entry = self.query_one(f"#field-{field.key}")
            found[field.key] = entry.value if isinstance(entry, Input | Pick) else ""
        return found

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Say what the field in hand means."""
        field = self._field_of(event.widget)
        self.query_one("#help", Static).update(field.help if field else "")

    @on(Input.Submitted)
    def go_on(self, event: Input.Submitted) -> None:
        """Enter in a field: the next one; where a path is needed and none is there yet, look for it."""
        field = self._field_of(event.input)
        if field is not None and field.kind == "path" and field.needed and not event.value.strip():
            self.action_look()
        else:
            self.focus_next()

    def _field_of(self, entry: Widget | None) -> Field | None:
        key = (entry.id or "").removeprefix("field-") if entry is not None else ""
        return next((field for field in self._fields if field.key == key), None)

    def action_look(self) -> None:
        """Look for the path of the field in hand; a folder that was chosen may be typed on from."""
        field, entry = self._field_of(self.focused), self.focused
        if field is None or field.kind != "path" or not isinstance(entry, Input):
            return

        def chosen(path: Path | None) -> None:
            if path is not None:
                entry.value = f"{path}/" if path.is_dir() and path.parent != path else str(path)
                entry.cursor_position = len(entry.value)

        self.app.push_screen(PickPath(start_of(entry.value)), chosen)

    @on(Button.Pressed)
    def choose(self, event: Button.Pressed) -> None:
        """Enter or a click on a button."""
        if event.button.id != "do":
            if self.typed() != self._begun:
                self._begun = self.typed()
                self.tell(_LOST.format(label=self._label, leave=self._leave))
            else:
                self.dismiss(None)
            return
        try:
            found = answers(self._fields, self.typed())
            if self._check is not None:
                self._check(found)
        except ApplianceError as problem:
            self.tell(f"{problem.message} {problem.hint}")
            return
        self.dismiss(found)

    def tell(self, wrong: str) -> None:
        """Say what is wrong; the fields make room for it, and scroll."""
        self.query_one("#wrong", Static).update(by_title(self._fields, wrong))
        self.set_class(bool(wrong), "-wrong")

    def action_no(self) -> None:
        """Leave without doing it."""
        self.dismiss(None)


_LOST = "Nothing is done yet: right goes to {label}. Enter on {leave} once more drops what you typed."
_KEYS = "up down field   left right choice   enter next, choose   esc {leave}"
_KEYS_WITH_PATHS = "up down field   left right choice   ctrl+o look for a file   esc {leave}"
