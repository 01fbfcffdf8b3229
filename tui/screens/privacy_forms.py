"""The forms of the Privacy screen: another budget, the report as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tui import session_privacy
from tui.fields import Field
from tui.screens.form import FormWindow
from tui.screens.frame import Framed


def ask_budget(screen: Framed, row: dict[str, Any], then: Callable[[], object]) -> None:
    """Ask for a new limit and set it; raising one may need a second person."""
    name = row["name"]

    def told(spent: float) -> None:
        screen.app.notify(f"The budget of {name} was changed; {spent:.2f} is spent.", markup=False)
        then()

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            screen.attempt(lambda: screen.site.set_budget(name, found["epsilon"]), told)

    fields = (
        Field(
            key="epsilon",
            title="epsilon",
            help=f"The most that all trainings on {name} may spend together. Of {row['epsilon_limit']:g},"
            f" {row['epsilon_spent']:.2f} is spent; that is never had back. Smaller protects more.",
            kind="number",
            default=f"{row['epsilon_limit']:g}",
            needed=True,
        ),
    )
    screen.app.push_screen(FormWindow(f"Budget of {name}", "Set it", fields), answered)


def ask_export(screen: Framed, dataset: str) -> None:
    """Ask for a file and write the dataset's privacy report to it."""

    def told(path: Path) -> None:
        screen.app.notify(f"The report is in {path}.", timeout=8, markup=False)

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            screen.attempt(lambda: session_privacy.export_privacy(screen.site, dataset, found["path"]), told)

    fields = (
        Field(
            key="path",
            title="file",
            help="Where to write it, as text. It must not be there yet.",
            kind="path",
            default=str(Path.cwd() / f"{dataset}-privacy.txt"),
            needed=True,
        ),
    )
    screen.app.push_screen(FormWindow("Write the privacy report out", "Write", fields), answered)
