"""cloister unlock, lock and vault: who can open the sealed site, and its keys."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from appliance.core.errors import ConfigWrong
from tui.cli.face import Face, command

app = typer.Typer(help="The sealed site: who can open it, recovery, new keys.", no_args_is_help=True)
As = Annotated[str | None, typer.Option("--as", help="Who you are. Left out: your account, or the only one.")]
Words = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="A file with your passphrase in its first line; else it is asked."
    ),
]
NewWords = Annotated[
    Path | None,
    typer.Option("--new-passphrase-file", help="A file with the new passphrase; else it is asked."),
]


def register(root: typer.Typer) -> None:
    """Add `unlock`, `lock` and `vault`."""
    command(root, "unlock")(unlock)
    command(root, "lock")(lock)
    root.add_typer(app, name="vault")


def unlock(
    face: Face,
    name: As = None,
    words: Words = None,
    minutes: Annotated[
        float, typer.Option(help="Lock after so long without a person.", min=0.1, max=1440)
    ] = 10.0,
    allow_swap: Annotated[
        bool, typer.Option("--allow-swap", help="Although memory may be written to a plain swap.")
    ] = False,
) -> None:
    """Unlock the site, or sign in where it is unlocked. Needed after every start of the machine."""
    from tui import session_vault

    name = _person(face, name)
    session_vault.unlock(
        face.session,
        name,
        _asked(f"Passphrase of {name}: ", words),
        minutes=minutes,
        allow_swap=allow_swap,
    )
    face.say(f"Unlocked by {name}. It locks after {minutes:g} minutes without a person, or: cloister lock")
    face.result({"unlocked": True, "name": name, "minutes": minutes})


def lock(face: Face) -> None:
    """Lock the site. Jobs and endpoints that run go on; nothing new is read."""
    from tui import session_vault

    was = session_vault.lock(face.session)
    face.say("Locked." if was else "The site was locked.")
    face.result({"locked": True, "was_unlocked": was})


@command(app, "status")
def vault_status(face: Face) -> None:
    """Whether the site is sealed and locked, and who can open it."""
    from tui import session_vault

    found = session_vault.status(face.session)
    if not found["vault"]:
        face.say("This site is not sealed: whoever has the disk can read it. See: cloister init --help")
        face.result(found)
        return
    face.say(f"The site is {'locked' if found['locked'] else 'unlocked'}; keys of epoch {found['epoch']}.")
    face.table(("who", "by"), [(slot["name"], slot["kind"]) for slot in found["slots"]], "Nobody.")
    if not found["whole"]:
        face.say("Some files are still plain. Seal them: cloister vault seal")
    if found["rotating"]:
        face.say("A change of keys was not finished. Go on with it: cloister vault rotate")
    if found["swap"]:
        face.say(f"Memory can reach a disk in plain text: {', '.join(found['swap'])}")
    if agent := found.get("agent"):
        left = max(0, agent["limit"] - agent["idle"])
        face.say(
            f"Locks in {left // 60} min {left % 60} s. Signed in: {', '.join(agent['people']) or 'nobody'}"
        )
    face.result(found)


@command(app, "add")
def vault_add(
    face: Face,
    new: Annotated[str, typer.Argument(help="The new person's name.", metavar="NAME")],
    name: As = None,
    words: Words = None,
    new_words: NewWords = None,
) -> None:
    """Let one more person open the site. They type their own passphrase."""
    from tui import session_vault

    name = _person(face, name)
    own = _asked(f"Passphrase of {name}: ", words)
    theirs = _new(f"New passphrase of {new}: ", new_words)
    session_vault.add(face.session, name, own, new=new, new_words=theirs)
    face.say(f"{new} can open the site.")
    face.result({"added": new})


@command(app, "remove")
def vault_remove(
    face: Face,
    old: Annotated[str, typer.Argument(help="Whose slot goes.", metavar="NAME")],
    name: As = None,
    words: Words = None,
) -> None:
    """Take a person's slot away. Rotate the keys afterwards: what they knew, they know."""
    from tui import session_vault

    name = _person(face, name)
    session_vault.remove(face.session, name, _asked(f"Passphrase of {name}: ", words), old=old)
    face.say(f"{old} cannot open the site any more. Next: cloister vault rotate")
    face.result({"removed": old})


@command(app, "passphrase")
def vault_passphrase(face: Face, name: As = None, words: Words = None, new_words: NewWords = None) -> None:
    """Change your passphrase."""
    from tui import session_vault

    name = _person(face, name)
    own = _asked(f"Passphrase of {name}: ", words)
    new = _new("New passphrase: ", new_words)
    session_vault.passphrase(face.session, name, own, new_words=new)
    face.say("Changed.")
    face.result({"changed": name})


@command(app, "recovery")
def vault_recovery(
    face: Face,
    name: As = None,
    words: Words = None,
    needed: Annotated[int, typer.Option(help="How many shares open the site together.", min=2, max=16)] = 2,
    shares: Annotated[int, typer.Option(help="How many shares to make.", min=2, max=16)] = 3,
) -> None:
    """Make recovery shares, shown once. Each goes on paper to another person; older ones end."""
    from tui import session_vault

    name = _person(face, name)
    own = _asked(f"Passphrase of {name}: ", words)
    made = session_vault.new_recovery(face.session, name, own, needed=needed, shares=shares)
    for number, text in enumerate(made, start=1):
        face.say(f"Share {number} of {shares}, any {needed} open the site:")
        face.wrap(text, "  ", "  ")
    face.say("Write each down for another person. They cannot be shown again.")
    face.result({"needed": needed, "shares": made})


@command(app, "recover")
def vault_recover(
    face: Face,
    name: Annotated[str, typer.Argument(help="Who gets a new passphrase.")],
    shares: Annotated[
        Path | None, typer.Option("--shares-file", help="A file with one share a line; else they are asked.")
    ] = None,
    new_words: NewWords = None,
) -> None:
    """Open the site with recovery shares and give a person a new passphrase."""
    from tui import session_vault

    texts = _shares(shares)
    new = _new(f"New passphrase of {name}: ", new_words)
    session_vault.recover(face.session, texts, name=name, new_words=new)
    face.say(f"{name} has a new passphrase. Make new shares: cloister vault recovery --as {name}")
    face.result({"recovered": name})


@command(app, "rotate")
def vault_rotate(face: Face, name: As = None, words: Words = None) -> None:
    """Give the site a new master key; run again, it finishes a change that was cut off. Locks the site."""
    from tui import session_vault

    name = _person(face, name)
    own = _asked(f"Passphrase of {name}: ", words)
    session_vault.rotate(face.session, name, own, told=_progress(face, "headers"))
    face.say("The site has new keys and is locked. Old backups still open with the old ones.")
    face.result({"rotated": True})


@command(app, "seal")
def vault_seal(face: Face, name: As = None, words: Words = None) -> None:
    """Seal files that are still plain; run again, it goes on where it was cut off. Locks the site."""
    from tui import session_vault

    name = _person(face, name)
    own = _asked(f"Passphrase of {name}: ", words)
    count, rest = session_vault.seal(face.session, name, own, told=_progress(face, "files"))
    face.say(f"{count} files were sealed; the site is locked.")
    if rest:
        face.wrap(rest)
    face.result({"sealed": count, "rest": rest})


@command(app, "take")
def vault_take(
    face: Face,
    file: Annotated[Path, typer.Argument(help="A sealed file of this site, such as reports/0007.html.")],
    target: Annotated[Path, typer.Option("--to", help="Where its plain copy goes.")],
) -> None:
    """Write a plain copy of a sealed file, to look at a report or chart."""
    from tui import session_vault

    session_vault.take(face.session, file, target.absolute())
    face.say(f"{target} is plain: whoever can read it, can read it.")
    face.result({"file": str(file), "copy": str(target)})


def _person(face: Face, name: str | None) -> str:
    from tui import session_vault

    return session_vault.person(face.session, name)


def _asked(prompt: str, file: Path | None) -> str:
    """The passphrase, from the file or from the terminal; never from an option, which `ps` shows."""
    if file is not None:
        try:
            return (file.read_text(encoding="utf-8").splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigWrong(f"{file} cannot be read as text.", "Give a UTF-8 text file.") from problem
    if not sys.stdin.isatty():
        raise ConfigWrong("There is no terminal to ask for a passphrase.", "Give --passphrase-file FILE.")
    return getpass.getpass(prompt)


def _new(prompt: str, file: Path | None) -> str:
    from appliance.security.passphrase import check_new

    words = _asked(prompt, file)
    check_new(words)
    if file is None and getpass.getpass("The same again: ") != words:
        raise ConfigWrong("The two are not the same.", "Type the new passphrase twice.")
    return words


def _shares(file: Path | None) -> list[str]:
    if file is not None:
        try:
            return [line for line in file.read_text(encoding="ascii").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigWrong(f"{file} cannot be read as text.", "Write one share a line.") from problem
    texts: list[str] = []
    while text := _asked(f"Share {len(texts) + 1} (empty: no more): ", None).strip():
        texts.append(text)
    return texts


def _progress(face: Face, what: str) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        if done == total or done % 200 == 0:
            face.say(f"{done} of {total} {what}")

    return told
