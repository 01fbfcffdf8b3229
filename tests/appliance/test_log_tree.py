"""The tree grows with the log, in its transaction, through kills; older logs are taken in."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import log_support as support
import pytest

from appliance.core import db
from appliance.core.db import connect, reading, transaction
from appliance.core.errors import LogDamaged
from appliance.core.home import Home, open_home
from appliance.core.migrations import MIGRATIONS
from appliance.security import audit
from appliance.security.log import merkle, tree, verify


def test_every_size_has_its_root(home: Home) -> None:
    leaves = []
    with transaction(home) as link:
        for number in range(70):
            audit.record(link, who="mira", what="test", target=str(number))
            entry = link.execute("SELECT entry FROM audit ORDER BY seq DESC LIMIT 1").fetchone()[0]
            leaves.append(merkle.leaf_hash(entry.encode()))
            assert tree.head(link) == (number + 1, 0)
            assert tree.root(link, number + 1) == merkle.root(number + 1, merkle.node_of(leaves))
        nodes = link.execute("SELECT COUNT(*) FROM audit_tree").fetchone()[0]
        assert nodes == sum(map(len, merkle.levels(leaves)))


def test_an_entry_costs_a_few_rows(home: Home) -> None:
    """Counted in statements, however long the log is: at most two a level, and 2 rows on average."""
    support.grow(home, 1023)
    with closing(connect(home)) as link:
        done: list[str] = []
        link.set_trace_callback(done.append)
        audit.record(link, who="mira", what="test", target="x")
    levels = (1024).bit_length()
    assert len(done) <= 2 * levels + 4, done
    assert sum("INSERT INTO audit_tree" in text for text in done) == levels


def test_what_fails_leaves_neither_entry_nor_tree(home: Home) -> None:
    support.grow(home, 5)
    with pytest.raises(RuntimeError), transaction(home) as link:
        audit.record(link, who="mira", what="test", target="x")
        raise RuntimeError
    support.grow(home, 1)
    found = verify.verify(home, [])
    assert found.ok and found.size == 6


def older_home(home: Home, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A home as it was before the tree."""
    with monkeypatch.context() as patch:
        patch.setattr(db, "MIGRATIONS", MIGRATIONS[:5])
        with transaction(home) as link:
            for number in range(count):
                entry = f'{{"target":"{number}"}}'
                leaf = merkle.leaf_hash(entry.encode()).hex()
                link.execute("INSERT INTO audit (entry, leaf) VALUES (?, ?)", (entry, leaf))


def test_an_older_log_is_taken_in_at_its_first_use(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_BATCH", 10)
    older_home(home, monkeypatch, 37)
    found = verify.verify(home, [])
    assert found.ok and found.size == 37
    with transaction(home) as link:
        assert tree.head(link) == (0, 37)
        audit.record(link, who="mira", what="test", target="new")
        assert tree.head(link) == (38, 37)
    again = verify.verify(home, [])
    assert again.ok and again.size == 38 and support.add_witness(home) == 39


@pytest.mark.parametrize("seq", [1, 20, 37])
def test_an_older_log_that_lost_an_entry_takes_no_more(
    home: Home, seq: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    older_home(home, monkeypatch, 37)
    connect(home).close()
    with support.tampering(home) as link:
        link.execute("DELETE FROM audit WHERE seq = ?", (seq,))
    with pytest.raises(LogDamaged, match=f"entry {seq} is missing"):
        support.grow(home, 1)
    (damage,) = verify.verify(home, []).damages
    assert (damage.first, damage.last) == (seq, seq)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit",
        "UPDATE audit SET entry = 'x'",
        "DELETE FROM audit_tree",
        "UPDATE audit_tree SET hash = x'00'",
    ],
)
def test_the_database_refuses_edits(home: Home, statement: str) -> None:
    support.grow(home, 3)
    with pytest.raises(sqlite3.IntegrityError, match="only appended"), transaction(home) as link:
        link.execute(statement)
    assert verify.verify(home, []).ok


def behind(link: sqlite3.Connection) -> None:
    link.execute("INSERT INTO audit (entry, leaf) VALUES ('x', 'x')")


def no_size(link: sqlite3.Connection) -> None:
    link.execute("DELETE FROM audit_head")


def no_node(link: sqlite3.Connection) -> None:
    link.execute("DELETE FROM audit_tree WHERE level = 1")


@pytest.mark.parametrize("act", [behind, no_size, no_node])
def test_a_damaged_log_takes_no_entry_and_so_no_action(
    home: Home, act: Callable[[sqlite3.Connection], None]
) -> None:
    support.grow(home, 3)
    with support.tampering(home) as link:
        act(link)
    with pytest.raises(LogDamaged), transaction(home) as link:
        link.execute("INSERT INTO plans (job, plan) VALUES ('0001', '')")
        audit.record(link, who="mira", what="test", target="x")
    with reading(home) as link:
        assert link.execute("SELECT COUNT(*) FROM plans").fetchone()[0] == 0


def kill_while_it_grows(folder: Path, kills: int, seed: int) -> int:
    """Start, kill at a random moment, look; how long the log has become."""
    home, chance, size = open_home(folder / "home"), random.Random(seed), 0
    for _ in range(kills):
        child = subprocess.Popen(
            [sys.executable, support.__file__, str(home.path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.random() * 0.2)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found = verify.verify(home, [])
        assert found.ok, found.damages
        with reading(home) as link:
            assert tree.head(link)[0] == found.size >= size
            assert link.execute("SELECT COUNT(*) FROM audit").fetchone()[0] == found.size
            assert tree.root(link, found.size) == found.root
        size = found.size
    return size


def test_kills_leave_log_and_tree_equal(tmp_path: Path) -> None:
    assert kill_while_it_grows(tmp_path, 4, seed=1) > 0


@pytest.mark.soak
def test_a_hundred_kills_leave_log_and_tree_equal(tmp_path: Path) -> None:
    assert kill_while_it_grows(tmp_path, 100, seed=2) > 1000
