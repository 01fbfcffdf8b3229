"""cloister bundle: signed, sealed files that leave the building or come in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from appliance.core.errors import ConfigWrong
from appliance.security.amounts import read_end
from tui.cli.face import Face, command

if TYPE_CHECKING:
    from appliance.security.bundle.releasing import Request

app = typer.Typer(help="Signed, encrypted files that leave the building or come in.", no_args_is_help=True)

Model = Annotated[str | None, typer.Argument(help="The adapter or GGUF file to send.")]
Wheelhouse = Annotated[
    Path | None,
    typer.Option(help="Send this wheelhouse (make wheelhouse) instead of a model.", metavar="DIR"),
]
To = Annotated[
    list[str], typer.Option("--to", help="Who can open it: a name of `trust show`. Repeat for more.")
]
Suite = Annotated[
    str, typer.Option(help="How keys are sealed: hybrid (also against quantum computers), or x25519.")
]
Expires = Annotated[str, typer.Option(help="How long it can be imported: 12h, 90d, 8w; up to 400 days.")]
Line = Annotated[
    str, typer.Option(help="The line it belongs to: of a line, older bundles are refused after newer ones.")
]
File = Annotated[Path, typer.Argument(help="The .clb file.")]
Keys = Annotated[
    Path | None, typer.Option("--identity", help="The keys to open it with. Default: those of the home.")
]


@command(app, "request")
def request(
    face: Face,
    to: To,
    model: Model = None,
    wheelhouse: Wheelhouse = None,
    suite: Suite = "hybrid",
    expires: Expires = "90d",
    line: Line = "",
) -> None:
    """Show what would leave, and the hash that two people approve. Writes nothing."""
    asked = _asked(face, model, wheelhouse, to, suite, expires, line)
    face.result(_say_leaving(face, asked))


@command(app, "export")
def export(
    face: Face,
    to: To,
    model: Model = None,
    wheelhouse: Wheelhouse = None,
    out: Annotated[Path | None, typer.Option(help="Where to write it. Default: NAME.clb here.")] = None,
    suite: Suite = "hybrid",
    expires: Expires = "90d",
    line: Line = "",
) -> None:
    """Send a model or a wheelhouse: shows what leaves, and writes it if two people approved exactly that.

    Their yes is used up when the bundle lies there; an export that failed before can be tried again.
    """
    from tui import session_bundle

    asked = _asked(face, model, wheelhouse, to, suite, expires, line)
    shown = _say_leaving(face, asked)
    face.say()
    made = session_bundle.export(
        face.session,
        asked,
        (out or Path(f"{asked.facts.name}.clb")).absolute(),
    )
    face.say(f"Written: {made['path']}")
    face.say(f"  number {made['seq']}, sha256 {made['digest'][:16]}, good until {made['expires']}")
    face.result({**shown, **made})


@command(app, "verify")
def verify(
    face: Face,
    file: File,
    identity: Keys = None,
    signer: Annotated[
        list[Path] | None, typer.Option(help="The card of a signer to trust for this. Repeat for more.")
    ] = None,
) -> None:
    """Check a whole bundle and change nothing: signer, receiver, age, every byte. Needs no database."""
    from tui import session_bundle

    found = session_bundle.verify(face.home, file, keys=identity, cards=signer or ())
    face.wrap(f"GOOD: {file.name} is whole, and signed by {found['signer']} ({found['vouched']}).")
    _say_inside(face, found)
    face.result({"verified": True, **found})


@command(app, "show")
def show(face: Face, file: File, identity: Keys = None) -> None:
    """Show what a bundle says of itself. Neither its signer's trust nor its files are judged."""
    from tui import session_bundle

    found = session_bundle.look(face.home, file, keys=identity)
    face.say(f"{file.name}: the signature holds; whether its signer is trusted is not judged here.")
    _say_inside(face, found)
    face.say(f"Judge it: cloister bundle verify {file}")
    face.result({"verified": False, **found})


@command(app, "import")
def import_(
    face: Face,
    file: File,
    name: Annotated[str | None, typer.Option(help="What to call it here. Default: its own name.")] = None,
) -> None:
    """Bring a bundle in: verified first, all of it or nothing, its model checked like any foreign file."""
    from tui import session_bundle

    found = session_bundle.receive(face.session, file, name=name)
    face.say(f"{found['made']} is in: {found['kind']}, signed by {found['signer']}, number {found['seq']}.")
    _say_inside(face, found)
    if found["kind"] == "wheelhouse":
        place = face.session.home.wheelhouses / found["made"]
        face.say("Install from it, without a network: sh install.sh DIR in")
        face.say(f"  {place}")
        found["path"] = str(place)
    face.result({**found, "name": found["made"]})


def _asked(
    face: Face,
    model: str | None,
    wheelhouse: Path | None,
    to: list[str],
    suite: str,
    expires: str,
    line: str,
) -> Request:
    from tui import session_bundle

    return session_bundle.request(
        face.session,
        model,
        to,
        suite=suite,
        lifetime=span(expires),
        line=line,
        wheelhouse=wheelhouse and wheelhouse.absolute(),
    )


def span(text: str) -> int:
    """Seconds of a span; a date would be another span each time that it is asked for."""
    if "-" in text:
        raise ConfigWrong("A bundle's age is a span, not a date.", "Such as --expires 90d.")
    begin = datetime(2000, 1, 1, tzinfo=UTC)
    return int((read_end(text, begin) - begin).total_seconds())


def _say_leaving(face: Face, asked: Request) -> dict[str, Any]:
    from appliance.security.bundle.show import leaving
    from tui.cli.bundle_lines import leaving_lines

    shown = leaving(asked)
    for line in leaving_lines(shown):
        face.say(line)
    return shown


def _say_inside(face: Face, found: Mapping[str, Any]) -> None:
    from tui.cli.bundle_lines import inside_lines

    for line in inside_lines(found):
        face.say(line)
