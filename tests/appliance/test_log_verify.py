"""What an insider may do to the log, and that it is said exactly; each check taken out is missed."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import log_support as support
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.db import reading, transaction
from appliance.core.errors import DataRejected, LogDamaged
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.log import checkpoint, merkle, request_rows, verify, walk, witness
from appliance.security.log.checkpoint import Signer, sign
from appliance.security.log.verify import Verdict

Sql = sqlite3.Connection


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, list[Path]]:
    return support.witnessed_log(tmp_path_factory.mktemp("log"))


@pytest.fixture
def copy(site: tuple[Home, list[Path]], tmp_path: Path) -> Home:
    return support.copy_of(site[0], tmp_path / "copy")


def look(home: Home) -> Verdict:
    return verify.verify(home, support.KEYS)


def test_a_whole_log(copy: Home) -> None:
    found = look(copy)
    assert found.ok and (found.size, found.intact, found.witnessed, found.signed) == (160, 160, 150, 150)
    assert found.text == "intact up to entry 160, witnessed at 150"
    with reading(copy) as link:
        leaves = [bytes.fromhex(row[0]) for row in link.execute("SELECT leaf FROM audit ORDER BY seq")]
    assert found.root == merkle.root(160, merkle.node_of(leaves))
    assert "without a trace" in found.as_dict()["limit"]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9])
def test_over_the_ends_of_batches(home: Home, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "_LEVEL", 3)
    monkeypatch.setattr(walk, "BATCH", 8)
    assert look(home).text == "intact up to entry 0, witnessed by nobody yet"
    for count in (size, 23, 1, 40):
        if count:
            support.grow(home, count)
        found = look(home)
        assert found.ok and found.size == found.intact
    support.add_witness(home)
    assert look(home).ok
    with support.tampering(home) as link:
        link.execute("UPDATE audit_tree SET hash = ? WHERE level = 5 AND place = 0", (bytes(32),))
    (damage,) = look(home).damages
    assert (damage.kind, damage.first, damage.last) == ("tree", 1, 32)


def edit(link: Sql) -> None:
    link.execute("UPDATE audit SET entry = replace(entry, 'mira', 'joe') WHERE seq = 77")


def edit_with_leaf(link: Sql) -> None:
    edit(link)
    entry = link.execute("SELECT entry FROM audit WHERE seq = 77").fetchone()[0]
    link.execute("UPDATE audit SET leaf = ? WHERE seq = 77", (merkle.leaf_hash(entry.encode()).hex(),))


def edit_leaf(link: Sql) -> None:
    link.execute("UPDATE audit SET leaf = ? WHERE seq = 77", ("00" * 32,))


def delete(link: Sql) -> None:
    link.execute("DELETE FROM audit WHERE seq IN (77, 78)")


def delete_first(link: Sql) -> None:
    link.execute("DELETE FROM audit WHERE seq < 3")


def number_anew(link: Sql) -> None:
    entries = support.entries_of(link)
    support.write(link, entries[:76] + entries[77:], clever=False)


def insert(link: Sql) -> None:
    entries = support.entries_of(link)
    support.write(link, [*entries[:76], '{"who":"joe"}', *entries[76:]], clever=False)


def insert_before(link: Sql) -> None:
    link.execute("INSERT INTO audit (seq, entry, leaf) VALUES (-5, 'x', 'x')")


def insert_behind(link: Sql) -> None:
    link.execute("INSERT INTO audit (entry, leaf) VALUES ('x', ?)", (merkle.leaf_hash(b"x").hex(),))


def reorder(link: Sql) -> None:
    support.write(link, support.swapped(support.entries_of(link), 76, 99), clever=False)


def cut(link: Sql) -> None:
    link.execute("DELETE FROM audit WHERE seq > 155")


def cut_with_tree(link: Sql) -> None:
    """Everything but SQLite's own count."""
    support.write(link, support.entries_of(link)[:155], clever=True)
    link.execute("UPDATE sqlite_sequence SET seq = 160 WHERE name = 'audit'")


def cut_witnessed(link: Sql) -> None:
    support.write(link, support.entries_of(link)[:120], clever=True)


def spoil_tree(link: Sql) -> None:
    link.execute("UPDATE audit_tree SET hash = ? WHERE level = 2 AND place = 3", (bytes(32),))


def lose_leaf(link: Sql) -> None:
    link.execute("DELETE FROM audit_tree WHERE level = 0 AND place = 76")


def lose_size(link: Sql) -> None:
    link.execute("DELETE FROM audit_head")


def rewrite(link: Sql) -> None:
    """A clever insider makes all of the database fit."""
    entries = support.entries_of(link)
    entries[76] = entries[76].replace("mira", "joe")
    support.write(link, entries, clever=True)


def rewrite_and_forget(link: Sql) -> None:
    """And the database does not know of the witnesses: their files do."""
    rewrite(link)
    link.execute("DELETE FROM witnesses")
    link.execute("DELETE FROM checkpoints")


def spoil_signature(link: Sql) -> None:
    link.execute("UPDATE checkpoints SET note = replace(note, 'time 2026', 'time 2025') WHERE size = 90")


def fork(link: Sql) -> None:
    """A second log of the same size, signed by the site."""
    made = sign(support.KEY, 90, bytes(32), support.TIME)
    link.execute("INSERT INTO checkpoints VALUES (90, ?, '', ?)", (made.root.hex(), made.note.decode()))


def always(value: Any) -> Callable[..., Any]:
    return lambda *args, **more: value


def all_rows(rows: Any, found: Any) -> Any:
    return rows


def all_leaves(link: Any, begin: Any, rows: Any, leaves: Any, found: Any) -> int:
    return len(leaves)


def unsigned(note: bytes, keys: Any) -> Any:
    text, _ = checkpoint._parts(note)
    return checkpoint._checkpoint(text, note)


# What is done, what is said of it, and the check without which it is not.
TABLE = [
    (edit, ("changed", 77, 77), (walk, "_compare", all_leaves)),
    (edit_with_leaf, ("changed", 77, 77), (walk, "_compare", all_leaves)),
    (edit_leaf, ("changed", 77, 77), (walk, "_leaf_column", always(None))),
    (delete, ("missing", 77, 78), (walk, "_in_order", all_rows)),
    (delete_first, ("missing", 1, 2), (walk, "_in_order", all_rows)),
    (number_anew, ("missing", 77, 77), (walk, "_judge", always(True))),
    (insert, ("inserted", 77, 77), (walk, "_judge", always(True))),
    (insert_before, ("inserted", -5, -5), (walk, "_in_order", all_rows)),
    (insert_behind, ("inserted", 161, 161), (walk, "_compare", all_leaves)),
    (reorder, ("reordered", 77, 77), (walk, "_judge", always(True))),
    (cut, ("truncated", 156, 160), (verify, "_check_end", always(None))),
    (cut_with_tree, ("truncated", 156, 160), (verify, "_check_end", always(None))),
    (cut_witnessed, ("rolled back", 121, 150), (verify, "_check_checkpoints", always([]))),
    (spoil_tree, ("tree", 13, 16), (walk, "_compare_inside", always(None))),
    (lose_leaf, ("tree", 77, 77), (walk, "_compare", all_leaves)),
    (lose_size, ("tree", 0, 0), (verify, "_head", always((160, 0)))),
    (rewrite, ("rewritten", 42, 90), (verify, "_check_checkpoints", always([]))),
    (rewrite_and_forget, ("rewritten", 42, 90), (witness, "_files", always([]))),
    (spoil_signature, ("signature", 0, 0), (verify, "read", unsigned)),
    (fork, ("forked", 0, 0), (verify, "_check_checkpoints", always([]))),
]


def seen(found: Verdict) -> set[tuple[str, int, int]]:
    return {(damage.kind, damage.first, damage.last) for damage in found.damages}


@pytest.mark.parametrize(("act", "said", "check"), TABLE, ids=[row[0].__name__ for row in TABLE])
def test_each_damage_is_named_and_each_check_is_needed(
    copy: Home,
    act: Callable[[Sql], None],
    said: tuple[str, int, int],
    check: tuple[Any, str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with support.tampering(copy) as link:
        act(link)
    found = look(copy)
    assert said in seen(found), found.damages
    assert not found.ok and found.error().exit_code == 12
    if said[1]:
        assert found.intact <= max(said[1] - 1, 0)
    monkeypatch.setattr(*check)
    assert said not in seen(look(copy))


@pytest.mark.parametrize("on", [False, True])
def test_an_older_database_is_known_by_the_files_beside_it(
    site: tuple[Home, list[Path]], copy: Home, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    support.put_back(copy, site[1][-1])
    if on:
        support.grow(copy, 30)
    kinds = {damage.kind for damage in look(copy).damages}
    assert "rolled back" in kinds and ("rewritten" in kinds) == on
    monkeypatch.setattr(witness, "_files", always([]))
    assert look(copy).ok, "only the files can know"


def test_what_is_after_the_last_witness_can_go_unseen_and_the_text_says_so(copy: Home) -> None:
    with support.tampering(copy) as link:
        support.write(link, support.entries_of(link)[:152], clever=True)
    found = look(copy)
    assert found.ok and found.text == "intact up to entry 152, witnessed at 150"
    assert "could be cut off" in found.as_dict()["limit"]


def attempts(site: tuple[Home, list[Path]], folder: Path, count: int, seed: int) -> None:
    chance, unseen, kinds = random.Random(seed), [], set()
    whole = support.copied(site[0], folder / "whole.db")
    home = support.copy_of(site[0], folder / "copy")
    for _ in range(count):
        support.put_back(home, whole)
        done = support.tamper(home, site[1], chance)
        kinds.add(done.split(" of ")[0].split(" to ")[0])
        try:
            seen = not look(home).ok
        except LogDamaged:
            seen = True
        if not seen:
            unseen.append(done)
    assert unseen == []
    assert kinds == set(support.KINDS)


def test_random_tampering_is_always_seen(site: tuple[Home, list[Path]], tmp_path: Path) -> None:
    attempts(site, tmp_path, 100, seed=1)


@pytest.mark.soak
def test_a_thousand_tamperings_are_all_seen(site: tuple[Home, list[Path]], tmp_path: Path) -> None:
    attempts(site, tmp_path, 1000, seed=2)


def test_nothing_is_signed_that_breaks_with_what_was_signed(
    site: tuple[Home, list[Path]], copy: Home
) -> None:
    support.put_back(copy, site[1][-1])
    for _ in range(2):
        with pytest.raises(LogDamaged):
            support.add_witness(copy)
        support.grow(copy, 30)  # longer than what was signed, but another log
    with reading(copy) as link:
        assert link.execute("SELECT MAX(size) FROM checkpoints").fetchone()[0] == 90


def test_a_witness_that_does_not_fit_is_kept(copy: Home) -> None:
    other = sign(support.KEY, 120, bytes(32), support.TIME)
    with pytest.raises(LogDamaged, match="first 120 entries"):
        witness.add(copy, other.note, support.KEYS, who="mira", source="paper")
    assert ("rewritten", 91, 120) in seen(look(copy))
    longer = sign(support.KEY, 5000, bytes(32), support.TIME)
    with pytest.raises(LogDamaged, match="5000 were signed"):
        witness.add(copy, longer.note, support.KEYS, who="mira", source="paper")
    assert any(damage.last == 5000 for damage in look(copy).damages)
    stranger = Signer(name=support.KEY.name, key=Ed25519PrivateKey.generate())
    with pytest.raises(DataRejected):
        witness.add(copy, sign(stranger, 9, bytes(32), support.TIME).note, support.KEYS, who="m", source="x")
    assert not list(copy.witnesses.glob("*0009-*"))


def test_checkpoints_are_not_believed_without_a_key(copy: Home) -> None:
    assert {damage.kind for damage in verify.verify(copy, []).damages} == {"signature"}


def test_a_site_is_witness_for_its_partner(home: Home) -> None:
    partner = Signer(name="cloister/branch-north", key=support.KEY.key)
    with transaction(home) as link:
        for size in (7, 30, 12):
            witness.remember(link, sign(partner, size, bytes(32), support.TIME), source="b.clb", who="mira")
        held = witness.held(link, partner.name)
        assert held is not None and b"\n30\n" in held
        assert witness.held(link, support.KEY.name) is None
        assert [entry["what"] for entry in audit.tail(link, 9)] == ["audit.witness"] * 3
    with pytest.raises(LogDamaged, match="two different logs of 12"), transaction(home) as link:
        witness.remember(link, sign(partner, 12, bytes([1] * 32), support.TIME), source="c.clb", who="mira")
    assert look(home).ok, "a partner's log is not this site's"


def test_request_rows_are_part_of_it(copy: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ("r", "asked", "2026-11-25", "k1", "inbox", "", 0, 0, "ab")
    with transaction(copy) as link:
        number = link.execute(
            "INSERT INTO request_log (request, kind, at, key, model, route, prompt_tokens, completion_tokens,"
            " prompt) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        ).lastrowid
        told = request_rows.rows_hash([(number, *row)])
        audit.record(link, who="e", what="requests", target=str(number), count=1, rows=told)
    assert look(copy).ok
    for act in (
        "UPDATE request_log SET key = 'k2'",
        "DELETE FROM request_log",
        "INSERT INTO request_log SELECT 2, request, kind, at, key, model, '', 0, 0, '' FROM request_log",
        "INSERT INTO request_log SELECT -1, request, kind, at, key, model, '', 0, 0, '' FROM request_log",
    ):
        other = support.copy_of(copy, copy.path.with_name("other"))
        with support.tampering(other) as link:
            link.execute(act)
        found = look(other)
        assert {damage.kind for damage in found.damages} == {"request"}, act
        assert found.intact == found.size == 161, "the entries themselves are whole"
    with monkeypatch.context() as patch:
        patch.setattr(verify, "check_requests", always([]))
        assert look(other).ok
