"""A bordered box of text that is drawn anew for the width it has, and only when its text changes."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content
from textual.widgets import Static

Draw = Callable[[int, int], str | Content]


class Pane(Static, can_focus=True):
    """Shows what `draw(width, height)` returns. Text is never read as markup.

    It takes the focus so that it can be made as large as the screen.
    """

    def __init__(self, title: str, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__("", id=id, classes=classes, markup=False)
        self.border_title = title
        self._draw: Draw = lambda width, height: ""
        self._shown: str | Content = ""

    def show(self, draw: Draw) -> None:
        """Draw with `draw` from now on."""
        self._draw = draw
        self.redraw()

    def redraw(self) -> None:
        """Draw again at the size of now."""
        size = self.content_size
        if size.width < 1:
            return
        text = self._draw(size.width, size.height)
        if text != self._shown:
            self._shown = text
            self.update(text)

    def on_resize(self) -> None:
        """The width may have changed. Within the layout that is under way another height would be missed."""
        self.call_after_refresh(self.redraw)
