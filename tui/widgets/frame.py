"""The two lines on top of every screen: where you are, and which screens there are."""

from __future__ import annotations

from pathlib import Path

from textual.content import Content
from textual.widgets import Static

SCREENS = (
    ("1", "home", "Home"),
    ("2", "jobs", "Jobs"),
    ("3", "models", "Models"),
    ("4", "feedback", "Feedback"),
)


def title_text(site: str, crumbs: list[str], who: str, width: int) -> str:
    """`Cloister  SITE > A > B ... WHO`; when it is too long the site's folder gives way, from its left."""
    way = "".join(f" > {crumb}" for crumb in crumbs)
    room = width - len(who) - 1
    spare = room - len("Cloister  ") - len(way)
    if len(site) > spare:
        site = "..." + site[len(site) - spare + 3 :] if spare > 3 else ""
    return f"{f'Cloister  {site}{way}'[: max(0, room)]:<{max(0, room)}} {who}"[:width]


def screens_text(here: str) -> Content:
    """`1 Home 2 Jobs ...`; the one shown now is in brackets as well as bright."""
    parts: list[str | Content | tuple[str, str]] = []
    for key, mode, name in SCREENS:
        parts.append((f"[{key} {name}]", "bold reverse") if mode == here else f" {key} {name} ")
    return Content.assemble(*parts)


def site_name(home: Path) -> str:
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
        super().__init__(screens_text(here), id="screens", markup=False)
