"""The nine screens by their mode. Each is loaded as it is first asked for: Home waits for no other."""

from __future__ import annotations

from importlib import import_module

from tui.screens.frame import Framed


def screen_class(mode: str) -> type[Framed]:
    """The class of the screen of a mode."""
    found: type[Framed] = getattr(import_module(f"tui.screens.{mode}"), f"{mode.capitalize()}Screen")
    return found


def new_screen(mode: str) -> Framed:
    """A new screen of a mode."""
    return screen_class(mode)()
