"""The two lines on top of every screen: where you are, and which screens there are."""

from __future__ import annotations

from pathlib import Path

from rich.cells import cell_len
from textual.content import Content
from textual.widgets import Static

from tui.widgets.fit import column, fit

SCREENS = (
    ("1", "home", "Home"),
    ("2", "data", "Data"),
    ("3", "train", "Train"),
    ("4", "evaluate", "Evaluate"),
    ("5", "models", "Models"),
    ("6", "serve", "Serve"),
    ("7", "sites", "Sites"),
    ("8", "privacy", "Privacy"),
    ("9", "audit", "Audit"),
)


def title_text(site: str, crumbs: list[str], who: str, width: int) -> str:
    """`Cloister  SITE > A > B ... WHO`; when it is too long the site gives way, from its left."""
    way = "".join(f" > {crumb}" for crumb in crumbs)
    room = max(0, width - cell_len(who) - 1)
    spare = room - len("Cloister  ") - cell_len(way)
    if cell_len(site) > spare:
        while site and cell_len(site) > spare - 3:
            site = site[1:]
        site = f"...{site}" if site else ""
    return fit(f"{column(f'Cloister  {site}{way}', room)} {who}", width)


def screens_text(here: str, width: int) -> Content:
    """`1 Home 2 Data ...`; the one shown now is in brackets as well as bright.

    Where the names do not fit, the others are their numbers alone.
    """
    names = [f"{key} {name}" for key, _, name in SCREENS]
    short = sum(map(len, names)) + len(names) + 1 > width
    parts: list[str | tuple[str, str]] = []
    before = " "
    for (key, mode, _), name in zip(SCREENS, names, strict=True):
        if mode == here:
            parts.append((f"[{name}]", "bold reverse"))
            before = ""
        else:
            parts.append(before + (key if short else name))
            before = " "
    return Content.assemble(*parts)


def folder_name(home: Path) -> str:
    """The home folder, with ~ where it lies in the person's own."""
    try:
        return f"~/{home.relative_to(Path.home())}"
    except ValueError:
        return str(home)


class TitleLine(Static):
    """Product, site, way, person."""

    def __init__(self, site: str, who: str) -> None:
        super().__init__("", id="title", markup=False)
        self._site, self._who = site, who
        self.crumbs: list[str] = []

    def show(self, crumbs: list[str]) -> None:
        """Show where we are."""
        self.crumbs = crumbs
        self.update(title_text(self._site, crumbs, self._who, max(1, self.content_size.width)))

    def on_resize(self) -> None:
        """The width may have changed."""
        self.show(self.crumbs)


class ScreenLine(Static):
    """The numbered screens."""

    def __init__(self, here: str) -> None:
        super().__init__("", id="screens", markup=False)
        self._here = here

    def on_resize(self) -> None:
        """The width may have changed."""
        self.update(screens_text(self._here, max(1, self.content_size.width)))
