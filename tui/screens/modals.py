"""The small windows: confirm (level 1), confirm by name (level 2), words to type, help."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static


class Choice(Button):
    """A button that shows by brackets, not by colour alone, that it has the focus."""

    def __init__(self, text: str, *, id: str) -> None:
        self._text = text
        super().__init__(Content(f"  {text}  "), id=id, compact=True)
        self.active_effect_duration = 0  # while it lasts, Textual ignores Enter

    def on_focus(self) -> None:
        """Enter would press this one."""
        self.label = Content(f"[ {self._text} ]")

    def on_blur(self) -> None:
        """Enter would press another."""
        self.label = Content(f"  {self._text}  ")


Answer = TypeVar("Answer")


class Asking(ModalScreen[Answer]):
    """A window with a question in `#text` and buttons; the focus is on the one with the id `cancel`."""

    AUTO_FOCUS = "#cancel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "no", "Cancel", key_display="esc"),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
        Binding("pageup", "scroll(-1)", show=False),
        Binding("pagedown", "scroll(1)", show=False),
    ]

    def action_scroll(self, pages: int) -> None:
        """See the rest of a long question."""
        text = self.query_one("#text", VerticalScroll)
        text.scroll_page_down() if pages > 0 else text.scroll_page_up()


class Confirm(Asking[bool]):
    """A question before something that stops work or cannot be had back. The focus is on Cancel."""

    def __init__(self, question: str, label: str) -> None:
        super().__init__()
        self.question, self._label = question, label

    def compose(self) -> ComposeResult:
        """The question, Cancel, and the deed."""
        with Vertical(classes="window") as window:
            window.border_title = "Sure?"
            with VerticalScroll(id="text", can_focus=False):
                yield Static(self.question, markup=False)
            with Horizontal(classes="buttons"):
                yield Choice("Cancel", id="cancel")
                yield Choice(self._label, id="do")
            yield Static(
                "tab other button   enter choose   esc cancel   pgdn read on", classes="keys", markup=False
            )

    @on(Button.Pressed)
    def choose(self, event: Button.Pressed) -> None:
        """Enter or a click on a button."""
        self.dismiss(event.button.id == "do")

    def action_no(self) -> None:
        """Leave without doing it."""
        self.dismiss(False)


class ConfirmName(Asking[bool]):
    """A question before something is destroyed or leaves the building: its name has to be typed.

    `question` says what is lost and what stays. Enter in the field goes to Cancel, never to the deed.
    """

    def __init__(self, question: str, name: str, label: str) -> None:
        super().__init__()
        self.question, self._name, self._label = question, name, label

    def compose(self) -> ComposeResult:
        """The question, the name, Cancel, and the deed."""
        with Vertical(classes="window -loss") as window:
            window.border_title = "This cannot be undone"
            with VerticalScroll(id="text", can_focus=False):
                yield Static(self.question, markup=False)
            yield Input(placeholder=f"type {self._name} to go on", id="name", compact=True)
            yield Static("", id="wrong", markup=False)
            with Horizontal(classes="buttons"):
                yield Choice("Cancel", id="cancel")
                yield Choice(self._label, id="do")
            yield Static(
                "tab name, buttons   enter choose   esc cancel   pgdn read on", classes="keys", markup=False
            )

    @on(Input.Submitted)
    def typed(self) -> None:
        """Enter in the field."""
        self.query_one("#cancel", Choice).focus()

    @on(Button.Pressed)
    def choose(self, event: Button.Pressed) -> None:
        """Enter or a click on a button; the deed needs the name."""
        if event.button.id != "do":
            self.dismiss(False)
        elif self.query_one("#name", Input).value.strip() == self._name:
            self.dismiss(True)
        else:
            self.query_one("#wrong", Static).update(f"Type its name first: {self._name}")
            self.query_one("#name", Input).focus()

    def action_no(self) -> None:
        """Leave without doing it."""
        self.dismiss(False)


class Words(ModalScreen[None]):
    """Text to read, such as the command to type for what the screens cannot do yet, or the help."""

    AUTO_FOCUS = "#text"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,question_mark", "close", "Close", key_display="esc")
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self.text = title, text

    def compose(self) -> ComposeResult:
        """The text, scrolled where it is long."""
        with Vertical(classes="window") as window:
            window.border_title = self._title
            with VerticalScroll(id="text"):
                yield Static(self.text, markup=False)
            yield Static("esc close", classes="keys", markup=False)

    def action_close(self) -> None:
        """Back to the screen below."""
        self.dismiss(None)
