"""What Evaluate asks: what to measure, and where a report's page goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tui import session_reports
from tui.fields import Field
from tui.screens.form import FormWindow
from tui.screens.frame import Framed
from tui.screens.modals import Words
from tui.screens.site import SiteView
from tui.screens.trying import ask_and_try

ITS_OWN, ITS_BASE = "its own", "its base"


def evaluation_fields(view: SiteView, model: str = "") -> tuple[Field, ...]:
    """The form for measuring a model; `model` is chosen beforehand, else the newest that is not measured."""
    newest = list(reversed(view.models))
    tuned = [one.name for kind in ("adapter", "gguf") for one in newest if one.kind == kind]
    able = [*tuned, *(one.name for one in newest if one.kind == "base")]
    fresh = next((name for name in tuned if name not in view.passed), "")
    sets = list(dict.fromkeys(one.name for one in reversed(view.datasets)))
    return (
        Field(
            key="model",
            title="Model",
            help="What is measured. An adapter brings its base and all its GGUF files along: they are judged"
            " as they are served.",
            kind="choice",
            choices=tuple(able),
            default=model or fresh,
            needed=True,
        ),
        Field(
            key="dataset",
            title="Data set",
            help="Records it has never seen: those held out of the data set it was trained on, unless you"
            " name another with the same labels.",
            kind="choice",
            choices=(ITS_OWN, *sets),
            default=ITS_OWN,
        ),
        Field(
            key="against",
            title="Compare with",
            help="What it has to beat. Its base is what the gate asks for.",
            kind="choice",
            choices=(ITS_BASE, *able),
            default=ITS_BASE,
        ),
        Field(
            key="split",
            title="Records",
            help="test: for the verdict, looked at as seldom as possible. val: while you still choose; it"
            " lets no model be served.",
            kind="choice",
            choices=("test", "val"),
            default="test",
        ),
        Field(
            key="limit",
            title="At most",
            help="A quick look at so many records. Left empty, all of them: only that can pass a model.",
            kind="whole",
        ),
    )


def ask_evaluation(screen: Framed, view: SiteView, model: str = "") -> None:
    """Ask what to measure, start it, and show the job."""
    fields = evaluation_fields(view, model)
    if not fields[0].choices:
        screen.app.push_screen(Words("Nothing to measure", _NONE))
        return
    ask_and_try(
        screen,
        fields,
        lambda found: _start(screen, found),
        screen.show_job,
        title="Evaluate",
        label="Measure",
    )


def _start(screen: Framed, found: dict[str, Any]) -> str:
    spec = screen.site.evaluation(
        found["model"],
        against=None if found["against"] == ITS_BASE else found["against"],
        dataset=None if found["dataset"] == ITS_OWN else found["dataset"],
        split=found["split"],
        limit=found["limit"],
    )
    return screen.site.start_evaluation(spec)


def export_fields(model: str, job: str) -> Sequence[Field]:
    """The form for a report's page."""
    return (
        Field(
            key="path",
            title="File",
            help="One HTML file with its plots, for any browser. Its figures are exact counts that"
            " differential privacy does not protect: keep it inside. It must not be there yet.",
            kind="path",
            default=str(Path.cwd() / f"report-{model}-{job}.html"),
            needed=True,
        ),
    )


def ask_export(screen: Framed, job: str, model: str) -> None:
    """Ask for a file and write the page of the report that `job` made."""

    def told(path: Path) -> None:
        screen.app.notify(f"The page is in {path}.", timeout=8, markup=False)

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            screen.attempt(lambda: session_reports.export_page(screen.site, job, found["path"]), told)

    screen.app.push_screen(FormWindow("Write the report out", "Write", export_fields(model, job)), answered)


_NONE = (
    "There is no model yet. A model is measured once it was trained or imported.\n\nPress 1 for Home: it"
    " names the next step."
)
