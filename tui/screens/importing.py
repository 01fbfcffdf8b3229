"""The way from a file to an import that runs: two forms, each checked before it ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.core.errors import ApplianceError
from appliance.data.peek import Peek
from appliance.data.store import check_name
from tui import session_data
from tui.fields import written
from tui.screens.form import FormWindow
from tui.screens.frame import Framed
from tui.screens.import_fields import DEMO, FIRST, LEARN, column_fields, demo_spec, name_of, spec_from
from tui.session import Session


def ask_import(screen: Framed, given: Mapping[str, str] | None = None, words: str = "") -> None:
    """Ask what to import, start it and show it; `given` is what the first form begins with."""
    site = screen.site
    form = FormWindow(
        "Import records",
        "Go on",
        FIRST,
        words=words,
        given=given,
        check=lambda found: check_name(name_of(found)),
    )

    def answered(first: dict[str, Any] | None) -> None:
        if first is None:
            return
        if first["source"] == DEMO:
            screen.attempt(lambda: site.start_import(demo_spec(first)), screen.show_job)
            return
        screen.attempt(lambda: _looked(site, first["path"]), lambda seen: _go_on(screen, first, seen))

    screen.app.push_screen(form, answered)


def _looked(site: Session, path: Path) -> Peek | ApplianceError:
    try:
        return session_data.look_at(site, path)
    except ApplianceError as problem:
        return problem


def _go_on(screen: Framed, first: dict[str, Any], seen: Peek | ApplianceError) -> None:
    """To the columns; a file that cannot be read brings the first form back, with all that was typed."""
    if isinstance(seen, Peek):
        _ask_columns(screen, first, seen)
    else:
        ask_import(screen, written(first), f"{seen.message} {seen.hint}\n")


def _ask_columns(screen: Framed, first: dict[str, Any], peek: Peek) -> None:
    site = screen.site
    columns = ", ".join(peek.columns)
    form = FormWindow(
        f"Columns of {first['path'].name}",
        "Import",
        column_fields(peek, LEARN[first["learn"]]),
        words=f"Its columns: {columns}\n",
        leave="Back",
        check=lambda found: session_data.check_import(site, spec_from(first, found, peek.columns)),
    )

    def answered(second: dict[str, Any] | None) -> None:
        if second is None:
            ask_import(screen, written(first))
            return
        screen.attempt(lambda: site.start_import(spec_from(first, second, peek.columns)), screen.show_job)

    screen.app.push_screen(form, answered)
