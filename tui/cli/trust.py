"""cloister trust: this site's card, whose bundles it takes, and the offline root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tui.cli import trust_rotate
from tui.cli.asking import new_passphrase, passphrase_of, read_passphrase
from tui.cli.bundle import span
from tui.cli.face import Face, command

app = typer.Typer(help="Whose bundles this site takes, and to whom it can send.", no_args_is_help=True)
root = typer.Typer(help="The offline root: two of three keys vouch for all signers.", no_args_is_help=True)
app.add_typer(root, name="root")
app.add_typer(trust_rotate.app, name="rotate")

Words = Annotated[str, typer.Option(help="The eight words, as the other side read them out.")]
ComparedBy = Annotated[
    list[str] | None, typer.Option(help="Who compared the words: two people, so give it twice.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="A file with the key's passphrase. Left out, it is typed, a new one twice."),
]
Document = Annotated[Path, typer.Argument(help="The trust document, trust.json.")]


@command(app, "init")
def init(
    face: Face,
    name: Annotated[str, typer.Argument(help="What others call this site.")],
    role: Annotated[
        str, typer.Option(help="site, release (signs models for others) or edge (takes them).")
    ] = "site",
) -> None:
    """Make this site's keys: one to sign with, two to receive with."""
    from tui import session_bundle

    made = session_bundle.make_identity(face.session, name, role)
    _say_card(face, made)
    face.say("Give others the card: cloister trust card --to FILE")
    face.result(made)


@command(app, "card")
def card(
    face: Face, to: Annotated[Path | None, typer.Option(help="Write the card to this file.")] = None
) -> None:
    """Show this site's card, for partners to add."""
    from tui import session_bundle

    found = session_bundle.card(face.session, to.absolute() if to else None)
    _say_card(face, found)
    face.say(f"Written: {to}" if to else "Write it to a file: cloister trust card --to FILE")
    face.result(found)


@command(app, "show")
def show(face: Face) -> None:
    """List whose bundles this site takes, and what vouches for each."""
    from tui import session_bundle

    found = session_bundle.trusted(face.session)
    face.table(
        ("name", "role", "may sign", "epoch", "state"),
        [
            (one["name"][:24], one["role"], ", ".join(one["kinds"]) or "-", one["key_epoch"], one["state"])
            for one in found["signers"]
        ],
        "Nobody is trusted yet. Add a partner's card: cloister trust add CARD",
    )
    for one in found["signers"]:
        face.wrap(f"{one['name']}: {one['words']}", rest="  ")
        face.wrap(one["vouched"], "  ", "  ")
    if any(one["state"] == "unsigned" for one in found["signers"]):
        face.wrap(
            "unsigned: it was taken before this site had people, or put there by hand, so it counts for"
            " nothing. Two people add it again: cloister trust add CARD"
        )
    for one in found["revoked"]:
        face.say(f"revoked {one['revoked'][:16]}: {one['name']}, key {one['key'][:16]}")
    if found["root"]:
        _say_root(face, found["root"])
    face.result(found)


@command(app, "add")
def add(
    face: Face,
    card: Annotated[Path, typer.Argument(help="The partner's card, a file.")],
    words: Words = "",
    compared_by: ComparedBy = None,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="A kind it may sign. Default: those of its role.")
    ] = None,
) -> None:
    """Trust a partner's card, after two people compared its eight words with the partner.

    Read the words from the partner's own screen (`cloister trust card`), by telephone or face to face,
    never from the message that brought the card.
    """
    from tui import session_bundle

    added = session_bundle.trust_add(
        face.session,
        card,
        words=words,
        compared_by=compared_by or (),
        kinds=kinds,
    )
    face.say(
        f"{added['name']} ({added['role']}) is trusted to sign: {', '.join(added['kinds']) or 'nothing'}."
    )
    face.say(f"Compared by {' and '.join(added['compared_by'])}.")
    face.result(added)


@command(app, "revoke")
def revoke(face: Face, name: Annotated[str, typer.Argument(help="The partner's name, or its key.")]) -> None:
    """End the trust in a partner's key for good. A new key needs a new card."""
    from tui import session_bundle

    done = session_bundle.trust_revoke(face.session, name)
    face.say(f"{name} is revoked. Its bundles are refused from now on.")
    face.result(done)


@command(root, "show")
def root_show(face: Face) -> None:
    """Show the root document this site goes by."""
    from tui import session_bundle

    found = session_bundle.trusted(face.session)["root"]
    if found is None:
        face.say("No root document. Small sites pin cards instead: cloister trust add CARD")
    else:
        _say_root(face, found)
    face.result({"root": found})


@command(root, "accept")
def root_accept(face: Face, document: Document, words: Words = "", compared_by: ComparedBy = None) -> None:
    """Take the next root document. Of the first, two people compare the words of its keys."""
    from tui import session_bundle

    found = session_bundle.root_accept(face.session, document, words=words, compared_by=compared_by or ())
    _say_root(face, found)
    face.result(found)


@command(root, "key")
def root_key(
    face: Face,
    to: Annotated[Path, typer.Option(help="A new file, on a stick that goes into a safe.")],
    passphrase_file: KeyFile = None,
) -> None:
    """Make one root key, sealed under a passphrase. Make three, in three places; nobody should hold two."""
    from tui import session_root

    session_root.check_free(to.absolute())
    words = new_passphrase("this root key", passphrase_file, "--passphrase-file FILE")
    made = session_root.root_key(to.absolute(), words)
    face.say(f"key    {made['key']}")
    face.say(f"words  {made['words']}")
    face.result(made)


@command(root, "seal")
def root_seal(
    face: Face,
    key: Annotated[Path, typer.Argument(help="The file of a root key that lies there plain.")],
    passphrase_file: KeyFile = None,
) -> None:
    """Seal the file of an older, plain root key under a passphrase."""
    from tui import session_root

    words = new_passphrase("this root key", passphrase_file, "--passphrase-file FILE")
    made = session_root.root_seal(key.absolute(), words)
    face.wrap(f"{key} is sealed. Where it lay plain, the medium keeps a rest: destroy it, or rotate the key.")
    face.result(made)


@command(root, "draft")
def root_draft(
    face: Face,
    to: Annotated[Path, typer.Option(help="Where to write the unsigned document.")],
    card: Annotated[list[Path] | None, typer.Option(help="The card of a signer or receiver. Repeat.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="A root key (hex); three or more for the first.")
    ] = None,
    after: Annotated[Path | None, typer.Option(help="The document in force, which this one follows.")] = None,
    revoke: Annotated[list[str] | None, typer.Option(help="A key (hex) that ends. Repeat.")] = None,
    expires: Annotated[str, typer.Option(help="How long it holds: 365d, 26w.")] = "365d",
    same_signers: Annotated[
        bool, typer.Option("--same-signers", help="Take over the signers of --after, but for newer cards.")
    ] = False,
) -> None:
    """Write an unsigned root document: all signers of the next version."""
    from tui import session_root

    found = session_root.root_draft(
        to.absolute(),
        after=after,
        roots=key or (),
        cards=card or (),
        revoked=revoke or (),
        lifetime=span(expires),
        same_signers=same_signers,
    )
    _say_root(face, found)
    face.say(f"Have two root keys sign it: cloister trust root sign {to} --key FILE")
    face.result(found)


@command(root, "sign")
def root_sign(
    face: Face,
    document: Document,
    key: Annotated[Path, typer.Option(help="The file of one root key.")],
    passphrase_file: KeyFile = None,
) -> None:
    """Sign a root document with one root key, on the machine that reads that key."""
    from tui import session_root

    def asked(public: str) -> str:
        name = f"the root key {public[:16]}"
        return read_passphrase(passphrase_file) if passphrase_file else passphrase_of(name)

    found = session_root.root_sign(document.absolute(), key, asked)
    _say_root(face, found)
    face.result(found)


def _say_card(face: Face, found: Mapping[str, Any]) -> None:
    face.say(f"{found['name']} ({found['role']}), key epoch {found['key_epoch']}")
    face.say(f"  words  {found['words']}")
    face.say(f"  key    {found['key']}")


def _say_root(face: Face, found: Mapping[str, Any]) -> None:
    face.say(f"Root document, version {found['version']}, until {found['expires']}:")
    face.say(
        f"  {found['signed_by']} of {len(found['roots'])} root keys signed; {found['threshold']} are needed"
    )
    face.say(f"  words  {found['words']}")
    for one in found["signers"]:
        face.wrap(
            f"{one['name']} ({one['role']}): {', '.join(one['kinds']) or 'receives only'}", "  ", "    "
        )
