"""A log with witnesses, and what an insider may do to its database, in a clumsy way and in a clever one.

Run as a program it appends entries to the home it is given until it is killed.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.db import transaction
from appliance.core.home import Home, open_home
from appliance.security import audit
from appliance.security.log import merkle, witness
from appliance.security.log.checkpoint import Signer, verifier

KEY = Signer(name="cloister/st-anna", key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEYS = [verifier(KEY)]
TIME = datetime(2026, 11, 25, 10, 15, tzinfo=UTC)
WITNESSED = (41, 90, 150)


def clock() -> datetime:
    return TIME


def grow(home: Home, count: int, *, what: str = "test") -> None:
    """Add entries in one transaction."""
    with transaction(home) as link:
        for number in range(count):
            audit.record(link, who="mira", what=what, target=f"model-{number}", step=number)


def add_witness(home: Home) -> int:
    """Sign the log and bring the checkpoint back; its size."""
    made = witness.make(home, KEY, who="mira", clock=clock)
    witness.add(home, made.note, KEYS, who="mira", source="stick")
    return made.size


def witnessed_log(folder: Path) -> tuple[Home, list[Path]]:
    """A home whose log has 160 entries, witnessed at 41, 90 and 150, and copies of its database on the way.

    A copy was taken before each witness came back, when the database knew nothing of it.
    """
    home, olds = open_home(folder / "site"), []
    for size in WITNESSED:
        with transaction(home) as link:
            there = link.execute("SELECT COALESCE(MAX(seq), 0) FROM audit").fetchone()[0]
        grow(home, size - there - 1)
        olds.append(copied(home, folder / f"old-{size}.db"))
        assert add_witness(home) == size
    with transaction(home) as link:
        there = link.execute("SELECT COALESCE(MAX(seq), 0) FROM audit").fetchone()[0]
    grow(home, 160 - there)
    return home, olds


def copied(home: Home, target: Path) -> Path:
    """The database alone, whole, as a file."""
    with closing(sqlite3.connect(home.database)) as link, closing(sqlite3.connect(target)) as other:
        link.backup(other)
    return target


def copy_of(home: Home, folder: Path) -> Home:
    """The same site elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    copied(home, folder / "cloister.db")
    if home.witnesses.exists():
        shutil.copytree(home.witnesses, folder / "witnesses")
    return Home(path=folder)


def put_back(home: Home, old: Path) -> None:
    """Replace the database by an older copy."""
    for file in home.path.glob("cloister.db*"):
        file.unlink()
    shutil.copyfile(old, home.database)


@contextmanager
def tampering(home: Home) -> Iterator[sqlite3.Connection]:
    """The database without its guards."""
    with closing(sqlite3.connect(home.database)) as link:
        link.execute("PRAGMA synchronous = OFF")
        names = [row[0] for row in link.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for name in names:
            link.execute(f"DROP TRIGGER {name}")
        yield link
        link.commit()


def write(link: sqlite3.Connection, entries: list[str], *, clever: bool, first: int = 0) -> None:
    """Make `entries` the log, from place `first` on; `clever`: with leaves, tree and counts that fit."""
    link.execute("DELETE FROM audit WHERE seq > ?", (first,))
    for seq, entry in enumerate(entries[first:], start=first + 1):
        leaf = merkle.leaf_hash(entry.encode()).hex()
        link.execute("INSERT INTO audit (seq, entry, leaf) VALUES (?, ?, ?)", (seq, entry, leaf))
    if clever:
        link.execute("DELETE FROM audit_tree")
        for level, row in enumerate(merkle.levels([merkle.leaf_hash(e.encode()) for e in entries])):
            link.executemany(
                "INSERT INTO audit_tree VALUES (?, ?, ?)",
                [(level, place, found) for place, found in enumerate(row)],
            )
        link.execute("UPDATE audit_head SET size = ?", (len(entries),))
        link.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'audit'", (len(entries),))


def entries_of(link: sqlite3.Connection) -> list[str]:
    return [row[0] for row in link.execute("SELECT entry FROM audit ORDER BY seq")]


KINDS = ("edit", "delete", "insert", "reorder", "truncate", "roll back", "roll back and go on")


def tamper(home: Home, olds: list[Path], chance: random.Random) -> str:
    """Do something at random to what was witnessed, in any of the ways; what it was."""
    kind, clever = chance.choice(KINDS), chance.random() < 0.5
    if kind.startswith("roll back"):
        old = chance.randrange(len(olds))
        put_back(home, olds[old])
        if kind != "roll back":
            grow(home, chance.randrange(1, 150), what="other")
        return f"{kind} to {WITNESSED[old] - 1}"
    with tampering(home) as link:
        entries = entries_of(link)
        place = chance.randrange(WITNESSED[-1] - 1)
        changes: dict[str, Callable[[], list[str]]] = {
            "edit": lambda: [*entries[:place], spoilt(entries[place], chance), *entries[place + 1 :]],
            "delete": lambda: [*entries[:place], *entries[place + 1 :]],
            "insert": lambda: [*entries[:place], spoilt(entries[place], chance), *entries[place:]],
            "reorder": lambda: swapped(entries, place, chance.randrange(WITNESSED[-1])),
            "truncate": lambda: entries[:place],
        }
        if not clever and kind in ("edit", "delete") and chance.random() < 0.5:
            # Not even the rest of the table is made to fit.
            if kind == "edit":
                new = spoilt(entries[place], chance)
                link.execute("UPDATE audit SET entry = ? WHERE seq = ?", (new, place + 1))
            else:
                link.execute("DELETE FROM audit WHERE seq = ?", (place + 1,))
            return f"{kind} of {place + 1}, bare"
        write(link, changes[kind](), clever=clever)
    return f"{kind} of {place + 1}, {'clever' if clever else 'clumsy'}"


def spoilt(entry: str, chance: random.Random) -> str:
    """Another text: one character is another one."""
    place = chance.randrange(len(entry))
    return (
        entry[:place] + chr(33 + (ord(entry[place]) - 33 + chance.randrange(1, 93)) % 93) + entry[place + 1 :]
    )


def swapped(entries: list[str], one: int, other: int) -> list[str]:
    """Two entries in each other's place."""
    other = other if other != one else (one + 1) % len(entries)
    found = list(entries)
    found[one], found[other] = found[other], found[one]
    return found


if __name__ == "__main__":
    place = open_home(Path(sys.argv[1]))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        grow(place, random.randrange(1, 4))
