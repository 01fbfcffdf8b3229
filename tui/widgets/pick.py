"""A choice between a few words on one line: `< lora >`, changed by the left and right arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Static


class Pick(Static, can_focus=True):
    """Holds one of `choices`; tells with `Changed` when it is another."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "turn(-1)", show=False),
        Binding("right,space", "turn(1)", show=False),
        Binding("enter", "app.focus_next", show=False),
    ]

    class Changed(Message):
        """Another choice."""

        def __init__(self, pick: Pick) -> None:
            self.pick = pick
            super().__init__()

    def __init__(self, choices: Sequence[str], value: str, *, id: str) -> None:
        self.choices = tuple(choices)
        self.value = value if value in self.choices else self.choices[0]
        super().__init__(self._text(), id=id, markup=False)

    def _text(self) -> str:
        return f"< {self.value} >" if len(self.choices) > 1 else f"  {self.value}"

    def action_turn(self, by: int) -> None:
        """The next choice, or the one before."""
        self.value = self.choices[(self.choices.index(self.value) + by) % len(self.choices)]
        self.update(self._text())
        self.post_message(self.Changed(self))
