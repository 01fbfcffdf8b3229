"""Screens as text files. `CLOISTER_SCREENS=write pytest tests/tui/test_app_pictures.py` renews them."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from app_site import lines
from textual.app import App

HERE = Path(__file__).with_name("screens")
_MOVING = (
    (re.compile(r"\d\d:\d\d:\d\d(\.\d{3})?"), "HH:MM:SS"),  # the log's clock
    (re.compile(r"\d{4}-\d\d-\d\d"), "YYYY-MM-DD"),
    (re.compile(r"(?<![:\d])\d\d:\d\d(?![:\d])"), "MM:SS"),
    (re.compile(r"[▁▂▃▄▅▆▇█] │"), "  │"),  # the part of a scrollbar
)


def picture(app: App[None]) -> str:
    """The screen as text, times as their form alone; every other letter counts."""
    text = "\n".join(line.rstrip() for line in lines(app))
    for form, word in _MOVING:
        text = form.sub(word, text)
    return text.rstrip() + "\n"


def check(app: App[None], name: str) -> None:
    """Refuse a screen that does not look as in its file; the difference is told line by line."""
    file, now = HERE / f"{name}.txt", picture(app)
    if os.environ.get("CLOISTER_SCREENS") == "write":
        file.write_text(now, encoding="utf-8")
        return
    kept = file.read_text(encoding="utf-8") if file.exists() else ""
    told = difflib.unified_diff(kept.splitlines(), now.splitlines(), "kept", "now", lineterm="")
    assert now == kept, f"{name} looks otherwise than {file.name}:\n" + "\n".join(told)
