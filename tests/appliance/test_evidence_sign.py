"""The report as a file: what it holds, that no other file passes for one, what goes wrong without harm."""

from __future__ import annotations

import json
import random
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import evidence_support as site
import people_support as people
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from evidence_support import CANARY, KEY, look

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, LogDamaged, NotAllowed, NotFound
from appliance.core.home import Home
from appliance.ops.evidence import rows, shape, sign
from appliance.ops.evidence.report import examine, lacking, totals
from appliance.ops.evidence.sign import EvidenceRefused
from appliance.ops.evidence.words import as_text
from appliance.security import audit, canonical
from appliance.security.log.checkpoint import Signer

ROOT = Path(__file__).resolve().parents[2]
FROZEN = ROOT / "tests" / "frozen" / "evidence-1.json"
STRANGER = Signer(name=KEY.name, key=Ed25519PrivateKey.from_private_bytes(b"s" * 32))
CLOCK = datetime(2026, 11, 25, 10, 15, tzinfo=UTC)
Change = Callable[[dict[str, Any]], object]


QUICK = {**rows.PROBES, **dict.fromkeys(("software", "air gap"), lambda look: shape.supports("not here"))}


def write(home: Home, *, who: str = "mira", key: Signer = KEY, law: str = "nist") -> Path:
    folder = home.path / "evidence"
    folder.mkdir(exist_ok=True)
    examined = examine(look(home), law, clock=lambda: CLOCK, probes=QUICK)
    clock = lambda: CLOCK  # noqa: E731
    return sign.write(home, folder, examined, key, only=law, who=who, version="0.1.0", clock=clock)[1]


@pytest.fixture
def file(home: Home) -> Path:
    site.add_data(home)
    with transaction(home) as link:
        for number in range(20):
            audit.record(link, who="mira", what="test", target=str(number))
    return write(home)


def signed(path: Path, change: Change, *, key: Signer = KEY) -> Path:
    """The report changed, and signed again as only the site could."""
    report = json.loads(path.read_bytes())["report"]
    change(report)
    signature = key.sign(sign.SIGNED + canonical.encode(report)).hex()
    other = path.with_name("other.json")
    other.write_bytes(canonical.encode({"report": report, "signature": signature}))
    return other


def test_a_report_proves_itself(file: Path, home: Home) -> None:
    found = sign.check(file, KEY.public)
    assert (found["site"], found["mode"], found["only"]) == ("cloister/st-anna", "single-person", "nist")
    assert found["audit"]["entry"] == 22 and {row["entry"] for row in found["rows"]} == {22}
    with transaction(home) as link:
        (entry,) = audit.tail(link, 1)
    assert (entry["what"], entry["target"], entry["who"]) == ("evidence.write", file.name, "mira")
    assert entry["rows"]["does_not_support"] == totals(found["rows"])[shape.LACKS] > 0
    assert all(one["at"] == "2026-11-25T10:15:00+00:00" for one in found["probes"].values())
    assert file.with_suffix(".txt").read_text() == as_text(found)


def test_a_report_holds_no_words_of_records(home: Home) -> None:
    site.add_data(home)
    site.add_private(home)
    path = write(home, law="gdpr")
    for one in (path, path.with_suffix(".txt")):
        assert CANARY not in one.read_text() and str(home.path) not in one.read_text()


def test_the_text_fits_and_says_how_the_site_is_run(file: Path) -> None:
    text = as_text(sign.check(file, KEY.public))
    assert max(map(len, text.splitlines())) <= 80
    assert "SINGLE-PERSON MODE: no second person" in text.partition("NIST SP")[0]
    assert "It is no legal opinion" in re.sub(r"\s+", " ", text)


def test_a_site_with_people_says_so(home: Home) -> None:
    people.settle_in(home)
    with pytest.raises(NotAllowed, match="evidence report is for"):
        write(home, who="ana")
    assert list((home.path / "evidence").iterdir()) == []
    assert people.lines(home, "evidence.write") == 0
    found = sign.check(write(home, who="aude"), KEY.public)
    assert found["mode"] == "people" and "SINGLE" not in as_text(found)


def test_any_other_bytes_are_refused(file: Path) -> None:
    content, chance, other = file.read_bytes(), random.Random(7), file.with_name("other.json")
    for _ in range(400):
        at = chance.randrange(len(content))
        kind = chance.choice(("flip", "cut", "double", "end"))
        spoilt = {
            "flip": content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :],
            "cut": content[:at] + content[at + chance.randrange(1, 40) :],
            "double": content[:at] + content[max(0, at - 9) :],
            "end": content[:at],
        }[kind]
        if spoilt == content:
            continue
        other.write_bytes(spoilt)
        with pytest.raises(EvidenceRefused):
            sign.check(other, KEY.public)


CHANGES: dict[str, tuple[Change, str]] = {
    "row better than its probes": (
        lambda report: report["rows"][12].update(outcome=shape.SUPPORTS),
        "row 13 says something else than its probes",
    ),
    "other words of a row": (lambda report: report["rows"][0].update(says="x"), "of other results"),
    "a probe that passes": (
        lambda report: report["probes"]["epsilon"].update(found="all is well"),
        "of other results",
    ),
    "a row left out": (lambda report: report["rows"].pop(), "of other results"),
    "another number": (lambda report: report["rows"][0].update(entry=3), "an entry that is not in it"),
    "another entry": (lambda report: _renumber(report, 21), "is not in the log"),
    "another writer": (lambda report: report.update(who="joe"), "of other results"),
    "another entry's text": (
        lambda report: report["audit"].update(text=report["audit"]["text"].replace("mira", "joe")),
        "is not in the log",
    ),
    "no entry": (lambda report: report["audit"].update(text="[]"), "entry is damaged"),
    "no checkpoint": (lambda report: report["audit"].update(checkpoint="x"), "checkpoint does not hold"),
    "another site": (lambda report: report.update(site="cloister/other"), "checkpoint does not hold"),
    "other words of the key": (lambda report: report.update(words="a b c"), "not those of its key"),
    "another format": (lambda report: report.update(format="x"), "a format"),
    "an outcome that there is not": (
        lambda report: report["probes"]["epsilon"].update(outcome="certified"),
        "parts are missing",
    ),
    "more than a report has": (lambda report: report.update(more="x"), "parts are missing"),
    "a probe that is not there": (lambda report: report["probes"].pop("epsilon"), "row 1 names a probe"),
}


def _renumber(report: dict[str, Any], number: int) -> None:
    report["audit"]["entry"] = number
    for row in report["rows"]:
        row["entry"] = number


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_log_does_not_bear_out_is_refused_though_the_site_signed_it(file: Path, name: str) -> None:
    change, why = CHANGES[name]
    with pytest.raises(EvidenceRefused, match=why):
        sign.check(signed(file, change), KEY.public)


def test_another_key_is_refused(file: Path) -> None:
    with pytest.raises(EvidenceRefused, match="another key"):
        sign.check(file, STRANGER.public)
    forged = signed(file, lambda report: None, key=STRANGER)
    with pytest.raises(EvidenceRefused, match="signature does not fit"):
        sign.check(forged, KEY.public)


def test_files_that_are_no_report(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(EvidenceRefused, match="cannot be read"):
        sign.check(path, KEY.public)
    for content in (b"", b"[]", b"{}", b'{"report":1}', b"\xff", b"[" * 9000, b" " * (sign.LARGEST + 1)):
        path.write_bytes(content)
        with pytest.raises(EvidenceRefused):
            sign.check(path, KEY.public)


def test_frozen() -> None:
    """A report of format 1 that was written once is read for ever, by rows that may change since."""
    found = sign.check(FROZEN, KEY.public)
    assert found["format"] == "cloister-evidence-1" and len(found["rows"]) == 14
    assert sign.digest_of(found["rows"], found["probes"]) == (json.loads(found["audit"]["text"])["sha256"])
    assert totals(found["rows"])[shape.SUPPORTS] == 1 and lacking(found["rows"]) == ["nist row 13"]


def test_what_fails_leaves_neither_file_nor_entry(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(report: dict[str, Any]) -> str:
        raise OSError("the disk is full")

    monkeypatch.setattr(sign, "as_text", full)
    with pytest.raises(ConfigWrong, match="full"):
        write(home)
    assert list((home.path / "evidence").iterdir()) == []
    assert people.lines(home, "evidence.write") == 0


def test_a_file_has_its_name_only_once_its_entry_is_committed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a crash would leave a checkpoint that the site has signed of a log that it does not have."""
    named = []

    @contextmanager
    def watched(home: Home) -> Iterator[sqlite3.Connection]:
        with transaction(home) as link:
            yield link
            named.extend((home.path / "evidence").glob("evidence-*"))

    monkeypatch.setattr(sign, "transaction", watched)
    assert write(home).exists() and named == []


def test_nothing_is_overwritten_and_a_folder_is_needed(file: Path, home: Home) -> None:
    before = file.read_bytes()
    with pytest.raises(ConfigWrong, match="is there already"):
        write(home)
    assert file.read_bytes() == before
    with pytest.raises(ConfigWrong, match="no folder"):
        sign.write(home, home.path / "x", {}, KEY, who="mira", version="", clock=lambda: CLOCK)


def test_a_log_that_was_cut_off_writes_no_report(file: Path, home: Home) -> None:
    file.unlink()
    file.with_suffix(".txt").unlink()
    people.sql(home, "DELETE FROM audit WHERE seq > 10")
    people.sql(home, "UPDATE sqlite_sequence SET seq = 10 WHERE name = 'audit'")
    with pytest.raises(LogDamaged):
        write(home)
    assert not file.exists()


# --- running probes


def _leaky(look: shape.Look) -> shape.Found:
    raise ValueError(f"cannot parse {CANARY}")


def _refusing(look: shape.Look) -> shape.Found:
    raise NotFound("There is no such thing.", "Make one.")


def test_a_probe_that_throws_is_no_pass(home: Home) -> None:
    names = {name for row in rows.chosen("nist") for name in row.probes}
    probes: dict[str, shape.Probe] = dict.fromkeys(names, lambda look: shape.supports("fine"))
    assert lacking(examine(look(home), "nist", probes=probes)["rows"]) == []
    for bad, words in ((_leaky, "ended with ValueError"), (_refusing, "There is no such thing.")):
        found = examine(look(home), "nist", probes={**probes, "epsilon": bad})
        one = found["probes"]["epsilon"]
        assert one["outcome"] == shape.FAILED and words in one["found"] and CANARY not in str(found)
        assert lacking(found["rows"]) == ["nist row 1"]


def test_what_a_probe_needs_and_is_not_installed_is_named(home: Home) -> None:
    def needs(look: shape.Look) -> shape.Found:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    found = examine(look(home), "nist", probes={**QUICK, "epsilon": needs})["probes"]["epsilon"]
    assert found["outcome"] == shape.FAILED and "site profile (scipy is not installed)" in found["found"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], shape.PEOPLE),
        ([shape.ABSENT], shape.ABSENT),
        ([shape.ABSENT, shape.SUPPORTS], shape.SUPPORTS),
        ([shape.SUPPORTS, shape.FAILED], shape.FAILED),
        ([shape.FAILED, shape.LACKS, shape.SUPPORTS], shape.LACKS),
    ],
)
def test_the_worst_probe_speaks_for_the_row(given: list[str], found: str) -> None:
    assert shape.together(given) == found


def test_every_row_has_words_and_every_probe_a_row() -> None:
    named = {name for row in rows.ROWS for name in row.probes}
    assert named == set(rows.PROBES)
    assert len({(row.law, row.clause) for row in rows.ROWS}) == len(rows.ROWS)
    assert {row.law for row in rows.ROWS} == set(rows.LAWS)
    for row in rows.ROWS:
        assert row.says.endswith(".") and len(row.title) <= 33 and len(row.clause) <= 24, row.clause


def test_no_word_says_more_than_supports() -> None:
    files = [*(ROOT / "appliance" / "ops" / "evidence").glob("*.py"), ROOT / "docs" / "evidence.md"]
    files += [ROOT / "tui" / "cli" / "evidence.py", ROOT / "tui" / "session_evidence.py"]
    for path in files:
        text = path.read_text().lower()
        assert not re.search(r"certif(y|ies|ied|ication)\b|complian|guarantee", text), path
