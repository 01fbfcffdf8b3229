"""The window that asks before a training: its plan, the epsilon it may reach, Cancel and Train."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Input, Static

from appliance.core.errors import ConfigWrong
from tui.screens.deeds import Deed, with_epsilon
from tui.screens.modals import Asking, Choice


class ConfirmTraining(Asking[Deed | None]):
    """Ends with the deed that the person wants; one with another epsilon than was planned wants a new plan.

    The focus is on Cancel, and what is started is always what was shown.
    """

    def __init__(self, question: str, deed: Deed) -> None:
        super().__init__()
        self.question, self._deed = question, deed

    def compose(self) -> ComposeResult:
        """The plan, the epsilon, Cancel and Train."""
        with Vertical(classes="window") as window:
            window.border_title = "Sure?"
            with VerticalScroll(id="text", can_focus=False):
                yield Static(self.question, markup=False)
            with Horizontal(id="choice"):
                yield Static("epsilon, at most", id="label", markup=False)
                yield Input(
                    "" if self._deed.epsilon is None else f"{self._deed.epsilon:g}",
                    placeholder="what the budget allows",
                    id="epsilon",
                    compact=True,
                )
            yield Static(self._planned_for(), id="wrong", markup=False)
            with Horizontal(classes="buttons"):
                yield Choice("Cancel", id="cancel")
                yield Choice(self._deed.label, id="do")
            yield Static(
                "tab epsilon, buttons   enter choose   esc cancel   pgdn read on",
                classes="keys",
                markup=False,
            )

    def _planned_for(self) -> str:
        """A typed epsilon brings this window back with another plan, and nothing has started yet."""
        if self._deed.epsilon is None:
            return ""
        return f"The plan for epsilon {self._deed.epsilon:g}. Nothing runs yet: {self._deed.label} starts it."

    @on(Button.Pressed)
    def choose(self, event: Button.Pressed) -> None:
        """Enter or a click on a button."""
        if event.button.id == "do":
            self.take()
        else:
            self.dismiss(None)

    @on(Input.Submitted)
    def take(self) -> None:
        """Take what is typed; Enter in the field never starts anything, it only asks for a new plan."""
        field = self.query_one("#epsilon", Input)
        try:
            wanted = with_epsilon(self._deed, field.value)
        except ConfigWrong as problem:
            self.query_one("#wrong", Static).update(f"{problem.message} {problem.hint}")
            field.focus()
            return
        if wanted == self._deed and self.focused is field:
            self.query_one("#cancel", Choice).focus()
            return
        self.dismiss(wanted)

    def action_no(self) -> None:
        """Leave without doing it."""
        self.dismiss(None)
