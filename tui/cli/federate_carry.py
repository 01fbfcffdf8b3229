"""cloister federate export-round and import-round: rounds of a site without a link, carried by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tui.cli.face import Face


def export_round(
    face: Face,
    name: Annotated[str, typer.Argument(help="The federation.")],
    to: Annotated[str | None, typer.Option(help="At the coordinator: the site it is carried to.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it. Default: NAME-ROUND-SITE.clb, on a stick say.")
    ] = None,
) -> None:
    """Write a round to a file that is carried: the coordinator's request, or a site's answer.

    It is a bundle: signed by this side, sealed for the other, good once. At the coordinator, a site is
    carried from its first export on; at the site, rounds are started with `federate start NAME --carried`.
    """
    from tui import session_carry

    target = out or Path(f"{name}-{to or 'answer'}.clb")
    made = session_carry.export_round(face.session, name, site=to, out=target.absolute())
    face.say(f"Round {made['round']} of {name} for {made['to']}: {made['path']}, {made['size']:,} bytes.")
    if made["reason"]:
        face.wrap(f"The site does not take part in this round; the file says why: {made['reason']}.")
    face.say(f"Good until {made['expires']}. There: cloister federate import-round FILE")
    face.result(made)


def import_round(
    face: Face, file: Annotated[Path, typer.Argument(help="The file that was carried here.")]
) -> None:
    """Bring a carried round in: at a site it is answered, at the coordinator the answer is judged."""
    from tui import session_carry

    found = session_carry.import_round(face.session, file)
    name, number = found["federation"], found["round"]
    if found["side"] == "site":
        face.say(f"Round {number} of {name} is here.")
        after = f"When it is answered: cloister federate export-round {name}"
        start = f"cloister federate start {name} --carried --detach"
    else:
        face.say(f"The answer of {found['site']} to round {number} of {name} is here.")
        after = f"See what became of it: cloister federate status {name}"
        start = f"cloister federate start {name} --detach"
    face.say(after if found["runs"] else f"Start the rounds: {start}")
    face.result(found)
