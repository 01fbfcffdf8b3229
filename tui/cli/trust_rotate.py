"""cloister trust rotate: new keys for this site, for a person, for the offline root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tui.cli.approve import say_asked, told_of
from tui.cli.asking import new_passphrase
from tui.cli.bundle import span
from tui.cli.face import Face, command

app = typer.Typer(help="New keys in place of old ones, each in its own way.", no_args_is_help=True)


@command(app, "site")
def site(
    face: Face,
    because: Annotated[str, typer.Option(help="Why; two people agree to it, and it is logged.")],
    stolen: Annotated[
        bool, typer.Option("--stolen", help="Others may have the old keys: delete them here.")
    ] = False,
) -> None:
    """Give this site new keys, of the next key epoch. Two people agree to it.

    Bundles still on their way can be opened unless --stolen is given. The log goes on, and what the old key
    signed of it still counts. Partners take the new card as they took the first: by its eight words.
    """
    from tui import session_bundle

    made = session_bundle.rotate(face.session, because, stolen=stolen)
    face.say(f"{made['name']} has new keys: key epoch {made['key_epoch']}.")
    face.say(f"  words  {made['words']}")
    face.say("Next: cloister trust card --to FILE; each partner: cloister trust add FILE")
    face.wrap("Where a root document names this site, its next version carries the new card:")
    face.say("  cloister trust root draft --after OLD --card FILE --same-signers --to NEW")
    if stolen:
        face.wrap("Tell each partner to revoke the old key now: cloister trust revoke KEY")
        face.say(f"  old key  {made['before']}")
    face.result(made)


@command(app, "person")
def person(
    face: Face,
    name: Annotated[str, typer.Argument(help="Whose key is made anew.")],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="A file with their new passphrase. Left out, they type it.")
    ] = None,
) -> None:
    """Ask for a new signing key of a person, under a new passphrase; a second person then signs.

    The same as `cloister people reset`. What the old key signed before stays valid; it signs nothing more.
    """
    from tui import session_people

    session = face.session
    words = new_passphrase(name, passphrase_file, "--passphrase-file FILE")
    asked = session_people.reset(session, name, words)
    say_asked(face, asked)
    face.result(told_of(asked))


@command(app, "root")
def root(
    face: Face,
    after: Annotated[Path, typer.Option(help="The trust document in force.")],
    key: Annotated[list[str], typer.Option(help="A root key (hex) of the next document: three or more.")],
    to: Annotated[Path, typer.Option(help="Where to write the unsigned document.")],
    expires: Annotated[str, typer.Option(help="How long it holds: 365d, 26w.")] = "365d",
) -> None:
    """Write the next trust document with other root keys; signers and revoked keys stay.

    Enough of the old root keys and enough of the new ones must sign it, so that a root key can be replaced
    and not taken over. Then each site takes it with `cloister trust root accept`.
    """
    from tui import session_root

    found = session_root.root_draft(
        to.absolute(),
        after=after,
        roots=key,
        cards=(),
        revoked=(),
        lifetime=span(expires),
        same_signers=True,
    )
    face.say(f"Version {found['version']}, for {len(found['roots'])} root keys: {to}")
    face.say(f"  words  {found['words']}")
    face.wrap(
        f"Now {found['threshold']} of the old root keys and {found['threshold']} of the new ones sign it:"
    )
    face.say(f"  cloister trust root sign {to} --key FILE")
    face.result(found)
