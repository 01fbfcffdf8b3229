"""An application of the terminal that gives away nothing: no picture of the screen, no values in a crash."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from rich.text import Text
from textual.app import App, SystemCommand
from textual.screen import Screen

from appliance.core.crash import trace

T = TypeVar("T")


class Discreet(App[T]):
    """`LAST_WORDS` are the two lines that people read after an unexpected error."""

    LAST_WORDS = ""

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """None of Textual's own: its Screenshot would write the screen to disk unseen."""
        return ()

    def deliver_screenshot(self, *args: object, **kwargs: object) -> None:
        """Nothing on screen leaves by a picture."""

    def _fatal_error(self) -> None:
        """Textual would print the values of variables as well, and the words of others' exceptions."""
        self.bell()
        problem = self._exception or sys.exc_info()[1]
        self.panic(Text(trace(problem) if problem else ""), self.LAST_WORDS)
