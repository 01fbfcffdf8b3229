"""The way out of a damaged log: two people sign, the old one is evidence, and all tells of it for ever."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import people_support as site
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_guards_below import agree

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, DataRejected, LogDamaged, NeedsApproval, NotAllowed
from appliance.core.files import sha256_file
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.log import renewal, renewed, witness
from appliance.security.log.checkpoint import Signer, verifier
from appliance.security.log.request_rows import find_prompt
from appliance.security.log.requests import RequestLog
from appliance.security.log.verify import Verdict, verify
from appliance.security.people import mode, persons
from appliance.security.trust import clock

RAW = Ed25519PrivateKey.from_private_bytes(bytes(32))
AT = datetime(2026, 11, 25, tzinfo=UTC)
WHY = "the disk had bad sectors"


def key(home: Home) -> Signer:
    return Signer(name=renewed.origin(home, "st-anna"), key=RAW)


def repair(home: Home, who: str = "joe", because: str = WHY, **rest: Any) -> renewal.Repair:
    signer = site.signer(who) if who in site.SEEDS else None
    return renewal.repair(home, who=who, signer=signer, because=because, keys=[verifier(key(home))], **rest)


def judged(home: Home) -> Verdict:
    return verify(home, [verifier(key(home))])


def fill(home: Home, count: int = 5) -> None:
    with transaction(home) as link:
        for number in range(count):
            audit.record(link, who="mira", what="test", target=str(number))


def cut(home: Home) -> None:
    """Take a node of the tree away, which the next entry needs: the log then refuses every change."""
    site.sql(home, "DELETE FROM audit_tree WHERE level = 0 AND place = (SELECT MAX(seq) - 1 FROM audit)")


@pytest.fixture
def damaged(home: Home) -> Home:
    fill(home, 3)
    witness.make(home, key(home), who="mira", clock=lambda: AT)
    fill(home, 5)
    cut(home)
    with pytest.raises(LogDamaged), transaction(home) as link:
        audit.record(link, who="mira", what="test", target="refused")
    return home


def test_a_log_that_takes_nothing_is_set_aside_and_begun_anew(damaged: Home) -> None:
    before = site.column(damaged, "SELECT entry FROM audit ORDER BY seq")
    done = repair(damaged).done
    assert done is not None and (done.number, done.entries, done.people) == (1, 9, ("joe",))
    assert (done.checkpoint_size, done.because) == (4, WHY)
    evidence = renewed.folder_of(damaged, 1) / "log.db"
    assert sha256_file(evidence) == done.evidence and evidence.stat().st_mode & 0o777 == 0o400
    with closing(sqlite3.connect(evidence)) as link:
        assert [row[0] for row in link.execute("SELECT entry FROM audit ORDER BY seq")] == before
    (first,) = site.column(damaged, "SELECT entry FROM audit")
    entry = json.loads(str(first))
    assert (entry["what"], entry["history"][0]["checkpoint_size"]) == ("audit.repair", 4)
    assert entry["statement"]["because"] == WHY and entry["statement"]["damages"]
    fill(damaged)
    found = judged(damaged)
    assert found.ok and found.size == 6 and found.renewals == (done,)
    with pytest.raises(sqlite3.IntegrityError), transaction(damaged) as link:
        link.execute("DELETE FROM audit")  # the triggers are back


def test_it_stays_visible_for_ever_and_in_every_report(damaged: Home) -> None:
    assert "begun anew" not in mode.statement(damaged)
    repair(damaged)
    fill(damaged)
    cut(damaged)
    repair(damaged, because="again")
    fill(damaged, 300)
    text = mode.statement(damaged)
    assert "begun anew 2 times" in text and WHY in text and "again" in text
    told = judged(damaged).as_dict()
    assert [one["number"] for one in told["renewals"]] == [1, 2] and WHY in told["text"]
    # Also where the first entry is damaged, and where the evidence is touched.
    site.sql(damaged, "UPDATE audit SET entry = 'x' WHERE seq = 1")
    assert len(judged(damaged).renewals) == 2 and not judged(damaged).ok


def test_evidence_that_is_touched_or_gone_is_told(damaged: Home) -> None:
    repair(damaged)
    path = renewed.folder_of(damaged, 1) / "log.db"
    path.chmod(0o600)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert [one.kind for one in judged(damaged).damages] == ["evidence"]
    path.unlink()
    assert "missing" in judged(damaged).damages[0].text


def test_a_sound_log_is_not_begun_anew(home: Home) -> None:
    fill(home)
    with pytest.raises(ConfigWrong, match="not damaged"):
        repair(home)
    cut(home)
    for because in ("", "x", "a\nb", "y" * 201):
        with pytest.raises(ConfigWrong, match="reason"):
            repair(home, because=because)


def test_an_older_log_that_was_rewritten_is_a_damage_too(damaged: Home) -> None:
    repair(damaged)
    fill(damaged)
    site.sql(damaged, "UPDATE audit SET entry = replace(entry, 'mira', 'joe') WHERE seq = 3")
    assert repair(damaged, because="changed").done is not None
    assert judged(damaged).ok


# --- two people


@pytest.fixture
def st_anna(home: Home) -> Home:
    site.settle_in(home)
    fill(home)
    cut(home)
    return home


def test_two_people_sign_and_one_alone_does_nothing(st_anna: Home) -> None:
    for who, why in (("ana", "is operator"), ("aude", "is auditor"), ("eve", "nobody of this site")):
        with pytest.raises(NotAllowed, match=why):
            repair(st_anna, who)
    assert renewal.waiting(st_anna) is None
    first = repair(st_anna, "sam")
    assert first.done is None and first.agreed == ("sam",)
    with pytest.raises(ConfigWrong, match="signed this already"):
        repair(st_anna, "sam")
    waiting = renewal.waiting(st_anna)
    assert waiting is not None and waiting.statement["because"] == WHY
    assert not judged(st_anna).ok
    second = repair(st_anna, "olga", because="")
    assert second.done is not None and sorted(second.done.people) == ["olga", "sam"]
    assert judged(st_anna).ok and renewal.waiting(st_anna) is None
    held = json.loads((renewed.folder_of(st_anna, 1) / "statement.json").read_bytes())
    assert sorted(held["signatures"]) == ["olga", "sam"] and held["statement"]["because"] == WHY


def test_a_log_that_nobody_signed_for_is_no_following_one(st_anna: Home) -> None:
    """Whoever can write the database puts an own first entry there, to have the old log forgotten."""
    repair(st_anna, "sam")
    repair(st_anna, "olga")
    (entry,) = (json.loads(str(one)) for one in site.column(st_anna, "SELECT entry FROM audit"))
    forged = {**entry, "statement": {**entry["statement"], "because": "nothing happened"}}
    site.sql(st_anna, "DELETE FROM audit")
    site.sql(st_anna, "DELETE FROM audit_tree")
    site.sql(st_anna, "DELETE FROM sqlite_sequence WHERE name = 'audit'")
    site.sql(st_anna, "UPDATE audit_head SET size = 0")
    forged = {name: value for name, value in forged.items() if name not in ("at", "who", "what", "target")}
    with transaction(st_anna) as link:
        audit.record(link, who="sam", what="audit.repair", target="log 1", **forged)
    assert [one.kind for one in judged(st_anna).damages] == ["unsigned"]


def test_one_persons_repair_counts_when_there_are_people_later(damaged: Home) -> None:
    repair(damaged)
    site.settle_people(damaged)
    assert judged(damaged).ok


def test_nobody_signs_for_another(st_anna: Home) -> None:
    repair(st_anna, "sam")
    with pytest.raises(NotAllowed):
        renewal.repair(st_anna, who="olga", signer=None, because=WHY, keys=[])
    with pytest.raises(NotAllowed):
        renewal.repair(st_anna, who="olga", signer=site.signer("sam"), because=WHY, keys=[])
    wrong = type(site.signer("olga"))(person="olga", seed=site.SEEDS["eve"])
    with pytest.raises(NotAllowed, match="not the key"):
        renewal.repair(st_anna, who="olga", signer=wrong, because=WHY, keys=[])
    path = st_anna.path / "damaged-logs" / "pending.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "signatures": {**held["signatures"], "olga": "00" * 64}}))
    assert renewal.waiting(st_anna) is None, "not written as it was"
    path.write_text(
        json.dumps(
            {**held, "signatures": {**held["signatures"], "olga": "00" * 64}},
            sort_keys=True,
            separators=(",", ":"),
        )
    )
    waiting = renewal.waiting(st_anna)
    assert waiting is not None and waiting.agreed == ("sam",)


def test_who_mistyped_can_still_sign_in_to_repair(st_anna: Home) -> None:
    now = datetime.now(UTC)
    for _ in range(2):
        with pytest.raises(NotAllowed, match="passphrase is wrong"):
            persons.sign_in(st_anna, "olga", "the horse of nobody eats 7", now=now)
    assert persons.sign_in(st_anna, "olga", site.passphrase("olga"), now=now).person == "olga"
    assert persons.states(st_anna)["olga"]["failed"] == 0


def test_what_is_signed_is_this_very_log_for_a_day(st_anna: Home) -> None:
    now = datetime.now(UTC)
    repair(st_anna, "sam", now=now - timedelta(hours=25))
    assert renewal.waiting(st_anna) is None
    repair(st_anna, "sam")
    site.sql(st_anna, "UPDATE audit SET entry = replace(entry, 'mira', 'joe') WHERE seq = 8")
    assert renewal.waiting(st_anna) is None, "it was changed after it was signed for"
    assert repair(st_anna, "olga").done is None, "so this is a first signature"
    path = st_anna.path / "damaged-logs" / "pending.json"
    held = json.loads(path.read_text())
    held["statement"]["because"] = "something else"
    path.write_text(json.dumps(held, sort_keys=True, separators=(",", ":")))
    assert renewal.waiting(st_anna) is None, "nobody has signed this"


def test_open_requests_are_void_and_used_ones_stay_used(home: Home) -> None:
    site.settle_in(home)
    agree(home, "clock.repair", "clock", {"time": "x"})
    fill(home)
    cut(home)
    repair(home, "sam")
    repair(home, "olga")
    from appliance.security.people import guard

    with pytest.raises(NeedsApproval), transaction(home) as link:
        guard.spend(link, home, "sam", "clock.repair", "clock", content={"time": "x"})
    agree(home, "clock.repair", "clock", {"time": "x"})
    with transaction(home) as link:
        guard.spend(link, home, "sam", "clock.repair", "clock", content={"time": "x"})


# --- what depends on the log


def test_the_new_logs_checkpoints_are_of_another_origin(damaged: Home, tmp_path: Path) -> None:
    old_key = key(damaged)
    note = witness.make  # the old log signs nothing more
    with pytest.raises(LogDamaged):
        note(damaged, old_key, who="mira", clock=lambda: AT)
    old = bytes(str(site.column(damaged, "SELECT note FROM checkpoints")[0]), "utf-8")
    repair(damaged)
    assert key(damaged).name == "cloister/st-anna.2"
    fill(damaged)
    made = witness.make(damaged, key(damaged), who="mira", clock=lambda: AT)
    assert witness.add(damaged, made.note, [verifier(key(damaged))], who="mira", source="x").size == made.size
    with pytest.raises(DataRejected):
        witness.add(damaged, old, [verifier(key(damaged))], who="mira", source="x")
    assert judged(damaged).ok and judged(damaged).witnessed == made.size
    # A checkpoint that a partner holds of the old log still judges what was kept of it.
    from appliance.security.log.checkpoint import read

    renewed.compare(damaged, 1, read(old, [verifier(old_key)]))
    path = renewed.folder_of(damaged, 1) / "log.db"
    path.chmod(0o600)
    with closing(sqlite3.connect(path)) as link:
        link.execute("UPDATE audit SET entry = replace(entry, 'mira', 'joe') WHERE seq = 2")
        link.commit()
    with pytest.raises(LogDamaged, match="not those that were signed"):
        renewed.compare(damaged, 1, read(old, [verifier(old_key)]))


def test_witnesses_go_with_their_log_and_partners_stay(damaged: Home, tmp_path: Path) -> None:
    note = bytes(str(site.column(damaged, "SELECT note FROM checkpoints")[0]), "utf-8")
    damaged.witnesses.mkdir()
    (damaged.witnesses / "000000000004-x.note").write_bytes(note)
    site.sql(damaged, "INSERT INTO witnesses VALUES ('cloister/north', 9, 'r', '2026', 'x', 'n')")
    site.sql(
        damaged, "INSERT INTO witnesses VALUES ('cloister/st-anna', 4, 'r', '2026', 'x', ?)", note.decode()
    )
    repair(damaged)
    assert list(damaged.witnesses.iterdir()) == []
    assert (renewed.folder_of(damaged, 1) / "witnesses" / "000000000004-x.note").read_bytes() == note
    assert site.column(damaged, "SELECT origin FROM witnesses") == ["cloister/north"]
    assert judged(damaged).ok
    # A crash before they are moved harms nothing and is cleared up.
    (damaged.witnesses / "000000000004-x.note").write_bytes(note)
    assert judged(damaged).ok
    renewal.finish(damaged)
    assert list(damaged.witnesses.iterdir()) == []


def test_a_crash_in_between_leaves_the_old_log(damaged: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = site.column(damaged, "SELECT entry FROM audit")
    whole = audit.record

    def die(*parts: Any, **rest: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(audit, "record", die)
    with pytest.raises(KeyboardInterrupt):
        repair(damaged)
    monkeypatch.setattr(audit, "record", whole)
    assert site.column(damaged, "SELECT entry FROM audit") == rows
    assert renewed.renewals(damaged) == () and renewed.origin(damaged, "st-anna") == "cloister/st-anna"
    assert repair(damaged).done is not None and judged(damaged).ok


def test_the_time_the_installation_and_who_asked_stay_known(home: Home) -> None:
    log = RequestLog(home)
    import asyncio

    async def ask() -> None:
        request, waiting = log.asked("key-1", "desk", "who is ill")
        await waiting
        log.answered(request, "key-1", "desk", route="", read=1, written=1)

    asyncio.run(ask())
    log.close()
    with transaction(home) as link:
        audit.record(link, who="sam", what="supply.record", target="/place", digest="d" * 64, packages=3)
        site.vouch(link, clock.SOFTWARE + 86_400)
    fill(home)
    with reading(home) as link:
        floor = clock.floor(link)
    cut(home)
    repair(home)
    from appliance.security.supply import baseline

    assert baseline.recorded(home, Path("/place")) == "d" * 64
    with reading(home) as link:
        assert clock.floor(link) >= floor
        assert link.execute("SELECT COUNT(*) FROM request_log").fetchone()[0] == 0
    assert [row["key"] for row in find_prompt(home, "who is ill")] == ["key-1"]
    log = RequestLog(home)
    asyncio.run(ask())
    log.close()
    assert judged(home).ok and len(find_prompt(home, "who is ill")) == 2
