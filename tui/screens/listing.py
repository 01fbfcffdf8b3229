"""A list with a filter: `/` opens it, esc clears it, the chosen row stays chosen while rows change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Input, Static

from tui.screens.frame import Looking
from tui.widgets.table import Table

Row = tuple[str, tuple[str, ...]]


class Listing(Looking):
    """`COLUMNS` are the headings; `rows` gives (key, cells) for the newest look."""

    AUTO_FOCUS = "#table"
    COLUMNS: tuple[str, ...] = ()
    TABLE: type[Table] = Table
    EMPTY = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        # Priority: keys that follow in the same packet must already find the filter focused.
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
    ]

    def table(self) -> ComposeResult:
        """Filter, table, and the words for an empty one."""
        yield Input(placeholder="filter", id="filter", compact=True)
        yield self.TABLE(id="table", cursor_type="row")
        yield Static(self.EMPTY, id="empty", markup=False)

    def begin(self) -> None:
        """Head the columns."""
        self._rows: list[Row] = []
        self._all: Sequence[Row] = ()
        field = self.query_one("#filter", Input)
        field.cursor_blink = False
        field.display = False
        self.query_one("#empty").display = False
        for heading in self.COLUMNS:
            self._list.add_column(heading, key=heading)
        super().begin()

    @property
    def _list(self) -> Table:
        return self.query_one("#table", Table)

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        row = self._list.cursor_row
        return self._rows[row][0] if 0 <= row < len(self._rows) else None

    def fill(self, rows: Sequence[Row]) -> None:
        """Show these rows, as far as the filter lets them through; redraw only what differs."""
        self._all = rows
        wanted = self.query_one("#filter", Input).value.strip().lower()
        shown = [row for row in rows if wanted in " ".join(row[1]).lower()]
        if shown != self._rows:
            self._widen(shown)
            if [key for key, _ in shown] == [key for key, _ in self._rows]:
                self._update(shown)
            else:
                self._replace(shown)
        empty = self.query_one("#empty", Static)
        empty.update(
            self.EMPTY if not rows else f"Nothing matches {wanted!r}. Press esc to clear the filter."
        )
        empty.display = not shown
        self._list.display = bool(shown)

    def _widen(self, shown: list[Row]) -> None:
        """Room for the cells before they are drawn: what Textual paints before it measures stays cut off."""
        for number, column in enumerate(self._list.ordered_columns):
            column.content_width = max(column.content_width, *(cell_len(row[1][number]) for row in shown), 0)

    def _update(self, shown: list[Row]) -> None:
        for place, ((_, new), (_, old)) in enumerate(zip(shown, self._rows, strict=True)):
            for column, (cell, before) in enumerate(zip(new, old, strict=True)):
                if cell != before:
                    self._list.update_cell_at(Coordinate(place, column), Text(cell), update_width=True)
        self._rows = shown

    def _replace(self, shown: list[Row]) -> None:
        kept = self.chosen
        self._list.clear()
        for key, cells in shown:
            self._list.add_row(*(Text(cell, no_wrap=True) for cell in cells), key=key)
        self._rows = shown
        place = next((place for place, (key, _) in enumerate(shown) if key == kept), 0)
        self._list.move_cursor(row=place)
        self.renew_keys()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In the filter, `/` is a character."""
        if action == "filter" and isinstance(self.focused, Input):
            return False
        return super().check_action(action, parameters)

    def action_filter(self) -> None:
        """Type a filter."""
        field = self.query_one("#filter", Input)
        field.display = True
        self.set_focus(field)  # at once: what is typed next belongs to the filter

    def action_back(self) -> None:
        """Clear the filter first, then go back."""
        field = self.query_one("#filter", Input)
        if not field.display:
            super().action_back()
            return
        field.value = ""
        field.display = False
        self._list.focus()
        self.fill(self._all)

    @on(Input.Changed, "#filter")
    def filtered(self) -> None:
        """Filter as it is typed."""
        self.fill(self._all)

    @on(Input.Submitted, "#filter")
    def leave_filter(self) -> None:
        """Enter goes to the list."""
        self._list.focus()

    @on(DataTable.RowHighlighted)
    def moved(self) -> None:
        """Which keys work depends on the row."""
        self.renew_keys()
