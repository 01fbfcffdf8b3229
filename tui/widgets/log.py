"""A log that is wrapped anew for the width it has; what follows a line's time hangs under its text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rich.text import Text
from textual.events import Resize
from textual.widgets import RichLog

_MOST = 5000


class LogView(RichLog):
    """Lines of (time, text). Text is never read as markup."""

    def __init__(self, title: str, *, id: str) -> None:
        super().__init__(id=id, wrap=False, markup=False, highlight=False, max_lines=2 * _MOST, min_width=1)
        self.border_title = title
        self._kept: deque[tuple[str, str]] = deque(maxlen=_MOST)
        self._width = 0

    def add(self, lines: Iterable[tuple[str, str]]) -> None:
        """Write these at the end."""
        for line in lines:
            self._kept.append(line)
            if self._width:
                self._put(*line)

    def on_resize(self, event: Resize) -> None:
        """Write all of it again where the width is another."""
        if self.scrollable_content_region.width != self._width:
            self._width = self.scrollable_content_region.width
            self.clear()
            for line in self._kept:
                self._put(*line)

    def _put(self, at: str, text: str) -> None:
        first = f"{at}  "
        room = max(10, self._width - len(first))
        for line in Text(text).wrap(self.app.console, room):
            self.write(Text(first).append(line.plain.rstrip()))
            first = " " * len(first)
