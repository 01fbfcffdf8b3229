"""cloister evidence: a signed report of what here supports which clause, and its check elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.errors import ApplianceError
from tui.cli.face import Face, command, tell

app = typer.Typer(invoke_without_command=True)


class EvidenceLacking(ApplianceError):
    """A report with rows that nothing here supports, or that could not be tested."""

    code = "evidence-lacking"
    exit_code = 15


class _Alone:
    """Takes `command`'s function as what `cloister evidence` does by itself, beside its subcommand."""

    @staticmethod
    def command(name: str | None = None, **kwargs: Any) -> Callable[..., Any]:
        return app.callback(invoke_without_command=True, **kwargs)


@command(_Alone)  # type: ignore[arg-type]
def evidence(
    face: Face,
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to; left out, `evidence` in the site's folder.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="One law: hipaa, gdpr, nist (SP 800-226), ai-act, other.", metavar="LAW"),
    ] = None,
) -> None:
    """Test this site now and write a signed report: which clauses of HIPAA, GDPR, NIST SP 800-226 and the EU
    AI Act what was found supports.

    Each row is backed by probes that just ran: the log is hashed anew, models, data and software too, every
    way out is tried, epsilon is counted from the ledger. A row says "supports", "does not support", "not
    applicable here", "could not be run", or "organisational": that one no program can show.
    It is no legal opinion.

    Two files are written: .json, which is signed and which others check with `cloister evidence verify`, and
    .txt to read. Neither holds words of records, prompts or answers. The exit code is 15 when a row
    does not support or could not be run.
    """
    if context.invoked_subcommand is not None:
        return
    from appliance.ops.evidence.rows import LAWS
    from appliance.ops.evidence.words import head, worst
    from tui import session_evidence

    made = session_evidence.write(face.session, out, only, _teller(face))
    for line in head(made):
        face.say(line)
    face.say()
    for law in dict.fromkeys(row["law"] for row in made["rows"]):
        rows = [row for row in made["rows"] if row["law"] == law]
        face.table((LAWS[law].partition(",")[0], "what", "result"), [_cells(row) for row in rows], "")
        face.say()
    for line in worst(made):
        face.say(line)
    face.say()
    face.say(f"signed: {made['path']}")
    face.say(f"text:   {made['text_path']}")
    face.wrap(f"audit log entry {made['audit']['entry']}. Others check it with:")
    face.say("cloister evidence verify FILE.json \\")
    face.say(f"  --key {made['key']}")
    _end(face, made)


@command(app, "verify")
def verify(
    face: Face,
    file: Annotated[Path, typer.Argument(help="The .json file of a report.")],
    key: Annotated[
        str | None, typer.Option(help="The signing site's public key, as 64 hex digits or a file.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Print all of the report, as it was signed.")] = False,
) -> None:
    """Check a report on any machine: its signature, its rows, and that the site's log has it.

    Without --key it is held against this site's own key. The .txt file is not needed: --text prints it
    anew from what was signed. Exit code 12: altered, or signed by somebody else.
    """
    from appliance.ops.evidence.words import as_text, head
    from tui import session_evidence

    told = session_evidence.check(None if key else face.session.home, file, key)
    for line in as_text(told).splitlines() if text else head(told):
        face.say(line)
    face.say()
    face.wrap(
        f"The report is as {told['site']} signed it; audit entry {told['audit']['entry']} of its log is of"
        " just these results."
    )
    face.wrap(told["words"], "words of the key: ")
    face.result(told)


def _teller(face: Face) -> Callable[[int, int, str], None]:
    """A line that is written over on a terminal; else a line for each probe."""
    live = sys.stderr.isatty()

    def say(at: int, of: int, name: str) -> None:
        sys.stderr.write(f"\r\033[K  {at}/{of} {name} ..." if live else f"  {at}/{of} {name}\n")
        if live and at == of:
            sys.stderr.write("\r\033[K")
        sys.stderr.flush()

    return say


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["clause"], row["title"], row["outcome"]


def _end(face: Face, made: dict[str, Any]) -> None:
    face.result(made)
    if made["lacking"]:
        count = len(made["lacking"])
        problem = EvidenceLacking(
            f"{count} row{'s' if count > 1 else ''} are not supported by what is here."
            if count > 1
            else "1 row is not supported by what is here.",
            "What each lacks stands above. The report is written and signed.",
        )
        tell(problem, as_json=False)
        raise typer.Exit(problem.exit_code)
