"""An entry of the command palette: its words are those of the CLI, so that each teaches the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`words` are what is typed after `cloister`; `action` names what is done with `target`.

    Of a screen's own entries `action` is the action of one of its keys, or empty to show the screen.
    """

    words: str
    help: str
    action: str = ""
    target: str = ""
