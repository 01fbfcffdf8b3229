"""Choosing a file or a folder: one folder at a time, with arrows and Enter alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from tui.widgets.table import Table
from tui.words import bytes_text

MOST = 2000


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the list. `kind` is "take" (this folder), "up", "folder" or "file"."""

    kind: str
    path: Path
    name: str
    size: str = ""


class Read(Message):
    """What is in a folder."""

    def __init__(self, folder: Path, rows: list[Row], note: str) -> None:
        self.folder, self.rows, self.note = folder, rows, note
        super().__init__()


def rows_of(folder: Path) -> tuple[list[Row], str]:
    """The lines for a folder, hidden ones left out, and what there is to say of it."""
    rows = [Row(kind="take", path=folder, name="(take this folder)")]
    if folder.parent != folder:
        rows.append(Row(kind="up", path=folder.parent, name=".."))
    note = ""
    found: list[Row] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if len(found) == MOST:
                    note = f"Only {MOST:,} of what is here are shown: type the path of another in the form."
                    break
                found.append(_row(entry))
    except OSError as problem:
        note = f"This folder cannot be read: {problem.strerror}."
    return [*rows, *sorted(found, key=lambda row: (row.kind != "folder", row.name.casefold()))], note


def _row(entry: os.DirEntry[str]) -> Row:
    try:
        if entry.is_dir():
            return Row(kind="folder", path=Path(entry.path), name=f"{entry.name}/")
        count = entry.stat().st_size
        size = bytes_text(count) if count >= 1e5 else f"{max(1, round(count / 1000))} kB"
    except OSError:
        size = "?"
    return Row(kind="file", path=Path(entry.path), name=entry.name, size=size)


def start_of(typed: str) -> Path:
    """The folder to begin at: that of what was typed as far as it is there, else the working folder."""
    if not typed.strip():
        return Path.cwd()
    path = Path(typed).expanduser().absolute()
    return next((one for one in (path, *path.parents) if one.is_dir()), Path.cwd())


class Paths(Table):
    """The list; its left and right arrows go through the folders."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "screen.up", show=False),
        Binding("right", "screen.into", show=False),
    ]


class PickPath(ModalScreen[Path | None]):
    """Ends with the chosen file or folder, or None."""

    AUTO_FOCUS = "#paths"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", key_display="esc"),
    ]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._rows: list[Row] = []

    def compose(self) -> ComposeResult:
        """Where we are, and what is there."""
        with Vertical(classes="window") as window:
            window.border_title = "Choose a file or a folder"
            yield Static("", id="folder", markup=False)
            yield Paths(id="paths", cursor_type="row", show_header=False)
            yield Static("", id="note", markup=False)
            yield Static(
                "enter open a folder, take a file   left folder above   esc cancel",
                classes="keys",
                markup=False,
            )

    def on_mount(self) -> None:
        """Read the first folder."""
        table = self.query_one("#paths", Paths)
        table.add_column("name", key="name", width=54)
        table.add_column("size", key="size")
        self._read(self._folder)

    @work(thread=True, exclusive=True, group="folder")
    def _read(self, folder: Path) -> None:
        rows, note = rows_of(folder)
        self.post_message(Read(folder, rows, note))

    @on(Read)
    def show_folder(self, event: Read) -> None:
        """Show what is there; coming from below, the cursor is on where we were."""
        came = self._folder
        self._folder, self._rows = event.folder, event.rows
        self.query_one("#folder", Static).update(str(event.folder))
        note = self.query_one("#note", Static)
        note.update(event.note)
        note.display = bool(event.note)
        table = self.query_one("#paths", Paths)
        table.clear()
        for number, row in enumerate(event.rows):
            table.add_row(Text(row.name, no_wrap=True), Text(row.size), key=str(number))
        known = (place for place, row in enumerate(event.rows) if row.path == came and row.kind == "folder")
        first = min(2, len(event.rows) - 1) if event.folder.parent != event.folder else 1
        table.move_cursor(row=next(known, first))

    @property
    def _chosen(self) -> Row | None:
        place = self.query_one("#paths", Paths).cursor_row
        return self._rows[place] if 0 <= place < len(self._rows) else None

    @on(DataTable.RowSelected)
    def take(self) -> None:
        """Enter: into a folder, or take what is under the cursor."""
        row = self._chosen
        if row is None:
            return
        if row.kind in ("take", "file"):
            self.dismiss(row.path)
        else:
            self._read(row.path)

    def action_into(self) -> None:
        """Into the folder under the cursor."""
        if (row := self._chosen) and row.kind in ("folder", "up"):
            self._read(row.path)

    def action_up(self) -> None:
        """The folder above."""
        self._read(self._folder.parent)

    def action_leave(self) -> None:
        """Back to the form with nothing chosen."""
        self.dismiss(None)
