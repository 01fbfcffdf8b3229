"""Passphrases and names, typed or from files; never from the command line, which others can read."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home

FILE = "CLOISTER_PASSPHRASE_FILE"
_LONGEST = 4096


def asks() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def passphrase_of(name: str) -> str:
    """The passphrase of a person who is here: typed, or from the file that CLOISTER_PASSPHRASE_FILE names.

    Raises:
        ConfigWrong: nobody can be asked and no file is named, or others may read it.
    """
    if path := os.environ.get(FILE):
        return read_passphrase(Path(path))
    if not asks():
        raise ConfigWrong(
            f"Nobody can type the passphrase of {name} here.", f"Name a file with it in {FILE}."
        )
    return getpass.getpass(f"Passphrase of {name}: ", sys.stderr)


def new_passphrase(name: str, path: Path | None, option: str) -> str:
    """A new passphrase, typed twice, or from a file.

    Raises:
        ConfigWrong: nobody can be asked and no file is given, it was typed in two ways, or others may read
            the file.
    """
    if path is not None:
        return read_passphrase(path)
    if not asks():
        raise ConfigWrong(f"Nobody can type a passphrase for {name} here.", f"Add {option}.")
    sys.stderr.write(f"{name} types a passphrase now; nobody else looks.\n")
    first = getpass.getpass(f"New passphrase of {name}: ", sys.stderr)
    if getpass.getpass("Once more: ", sys.stderr) != first:
        raise ConfigWrong("The two were not the same.", "Type it again.")
    return first


def read_passphrase(path: Path) -> str:
    """The first line of a file that only this account may read.

    Raises:
        NotFound: it is not there. ConfigWrong: others may read it, or it is empty or no text.
    """
    try:
        with path.expanduser().open("rb") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise ConfigWrong(f"Others may read {path}.", f"chmod 600 {path}")
            text = stream.readline(_LONGEST).rstrip(b"\r\n").decode()
    except OSError as problem:
        raise NotFound(f"{path} cannot be read: {problem.strerror}.", "Name the file anew.") from None
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise ConfigWrong(f"{path} holds no passphrase in its first line.", "Write it there, in UTF-8.")
    return text


def ask(question: str, option: str) -> str:
    """A line that a person types. Raises ConfigWrong where nobody can be asked."""
    if not asks():
        raise ConfigWrong(f"Nobody can be asked here: {question}.", f"Add {option}.")
    sys.stderr.write(f"{question}: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def named_files(given: Sequence[str] | None, option: str) -> dict[str, Path]:
    """NAME=FILE, several times. Raises ConfigWrong."""
    found: dict[str, Path] = {}
    for words in given or ():
        name, sign, path = words.partition("=")
        if not sign or not name or not path or name in found:
            raise ConfigWrong(f"{words[:60]} is not NAME=FILE with a name of its own.", f"Such as {option}.")
        found[name] = Path(path)
    return found


def open_screens_as(home: Home) -> str | None:
    """Who opens the screens: CLOISTER_AS, else asked; None where one person runs the site."""
    from appliance.security.people import mode

    if mode.mode(home) == mode.SINGLE:
        return None
    return os.environ.get("CLOISTER_AS") or ask("Who are you", "CLOISTER_AS=NAME before the command")
