"""Whether a home is sealed, and by which vault: a sealed one without its vault.json does not look unsealed.

Three things say so besides vault.json: people.json names the vault (`cloister init` writes it last), the
signed list of people names it too (security/people/persons.py compares), and sealed files begin with MAGIC.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from appliance.core.errors import ApplianceError

VAULT = "vault.json"
MAGIC = b"CLOISTER-S1\n"
AREAS = frozenset(
    {
        *("datasets", "models", "feedback", "documents", "routes", "reports", "jobs"),
        *("keys", "tls", "bundles", "federations"),
    }
)
OPEN = {
    "jobs": frozenset({"events.jsonl", "spare", "log.txt", "llama-server.log"}),
    "tls": frozenset({"ca.pem", "server.pem"}),
    "bundles": frozenset({".lock"}),
}
"""Files of sealed folders that are not: no record text and no key is in them, and who is locked out needs
them (how a job went), or others do (certificates), or they are empty."""

_LINK = (
    "federations",
    "link",
)  # federations/NAME/link: its processes have the network, and no key of the vault
_PEOPLE = "people.json"
_LARGEST = 1 << 20
_LOOKED_AT = 3  # files of each folder


class VaultGone(ApplianceError):
    """A home that is sealed, whose vault.json is missing or another home's."""

    code = "vault-gone"
    exit_code = 12


def is_open(inside: Path) -> bool:
    """Whether a file of a sealed folder stays plain; `inside` is its path in the home."""
    linked = len(inside.parts) > 2 and (inside.parts[0], inside.parts[2]) == _LINK
    return linked or inside.name in OPEN.get(inside.parts[0], ())


def has_vault(root: Path) -> bool:
    """Whether the home in the folder `root` is sealed.

    Raises:
        VaultGone: it is, and its vault.json is missing or another's.
    """
    marks = (_mark(root / VAULT), _mark(root / _PEOPLE))
    known = _known.get(root)
    if known is None or known[0] != marks:
        known = _known[root] = (marks, _look(root, there=marks[0] is not None))
    sealed, wrong = known[1]
    if wrong:
        raise gone(wrong)
    return sealed


def vault_of(root: Path) -> str | None:
    """The id in vault.json; None where there is none, "" where it is damaged."""
    return _named(root / VAULT)


def gone(how: str) -> VaultGone:
    """The error; `how` is "is missing" or the like."""
    return VaultGone(
        f"This home is sealed, and its vault.json {how}.",
        f"Restore {VAULT} from the backup of this home: nothing else opens its files.",
    )


_known: dict[Path, tuple[object, tuple[bool, str]]] = {}


def _look(root: Path, *, there: bool) -> tuple[bool, str]:
    """Whether it is sealed, and what is wrong with vault.json, if anything."""
    expected = _named(root / _PEOPLE)
    if there:
        swapped = expected and vault_of(root) not in (expected, "")
        return True, "is that of another home" if swapped else ""
    if expected or ((root / "keys").is_dir() and holds_sealed(root)):  # as every home has
        return True, "is missing"
    return False, ""


def holds_sealed(root: Path) -> bool:
    """Whether the site's keys or one of the first files of a folder are sealed."""
    some = [file for area in sorted(AREAS) for file in islice(_files(root, area), _LOOKED_AT)]
    return any(_begins_sealed(file) for file in [root / "keys" / "identity.json", *some])


def _files(root: Path, area: str) -> Iterator[Path]:
    for folder, _, names in os.walk(root / area):
        for name in names:
            file = Path(folder, name)
            if not is_open(file.relative_to(root)):
                yield file


def _begins_sealed(file: Path) -> bool:
    with suppress(OSError):
        if file.is_file():
            with file.open("rb") as stream:
                return stream.read(len(MAGIC)) == MAGIC
    return False


def _named(file: Path) -> str | None:
    """What a JSON file of the home has as `vault`."""
    try:
        with file.open("rb") as stream:
            return str(json.loads(stream.read(_LARGEST)).get("vault", ""))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
