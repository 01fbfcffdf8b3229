"""cloister report: evaluation reports, read and written out as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tui.cli.blind_lines import COLUMNS, cells, result_lines, told
from tui.cli.face import Face, command
from tui.cli.report_lines import (
    data_words,
    gate_lines,
    gate_title,
    group_lines,
    limit_lines,
    precision_lines,
    quality_lines,
    rule_lines,
    subject,
)
from tui.cli.tables import WIDTH
from tui.words import gate_word

app = typer.Typer(help="Evaluation reports: list, read, write the page out.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="MODEL", help="A model, or the job that made the report.")]


@command(app, "list")
def list_(face: Face) -> None:
    """List reports, newest first."""
    found = face.session.reports()
    face.table(
        ("model", "dataset", "gate", "when", "job"),
        [
            (one["model"], one["dataset"], gate_word(one), one["created"][:16].replace("T", " "), one["job"])
            for one in found
        ],
        "No reports yet. Make one: cloister evaluate MODEL",
        spare=("when",),
    )
    face.result({"reports": found})


@command(app)
def show(face: Face, name: Name) -> None:
    """Show a report: quality, gate and its rules, groups, precisions, limits."""
    from tui import session_reports

    found = session_reports.report(face.session, name)
    face.say(f"{subject(found)['name']}  {data_words(found)}")
    parts = (
        ("Quality", quality_lines(found)),
        (gate_title(found), gate_lines(found, WIDTH - 2)),
        ("By group", group_lines(found, WIDTH - 2)),
        ("Precision", precision_lines(found, WIDTH - 2)),
        ("Gate rules", rule_lines(found["rule"], WIDTH - 2)),
        ("Before you believe it", limit_lines(found, WIDTH - 2)),
    )
    for title, lines in parts:
        if lines:
            face.say(f"\n{title}")
            for line in lines:
                face.say(f"  {line}")
    face.result(found)


@command(app)
def blind(
    face: Face,
    number: Annotated[str | None, typer.Argument(help="One of them; all when left out.")] = None,
) -> None:
    """Blind comparisons of two models by a person: who was preferred how often, and how sure that is.

    They are made on the Evaluate screen (c). Names and counts are told when all pairs are judged.
    """
    from tui import session_blind

    found = session_blind.comparisons(face.session)
    if number is not None:
        found = [session_blind.comparison(face.session, number)]
        for line in result_lines(found[0], WIDTH):
            face.say(line)
    else:
        face.table(COLUMNS, [cells(one) for one in found], "No blind comparison yet: Evaluate screen, c.")
    face.result({"comparisons": [told(one) for one in found]})


@command(app)
def export(
    face: Face,
    name: Name,
    html: Annotated[
        Path, typer.Option("--html", metavar="FILE", help="A new file; it opens in any browser.")
    ],
) -> None:
    """Write a report's page, with plots, to one file that needs nothing else. Written to the audit log.

    Its figures are exact counts over held-out records, which differential privacy does not protect: keep
    it inside.
    """
    from tui import session_reports

    path = session_reports.export_page(face.session, name, html)
    face.say(f"The page is in {path}. Keep it inside: its figures are not protected by DP.")
    face.result({"path": str(path)})
