"""cloister evidence from end to end: a bare site of one, a sealed site of people, a stranger's check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "appliance"))
import evidence_support as site  # noqa: E402

from appliance.core.home import Home  # noqa: E402
from appliance.ops.evidence import rows, shape  # noqa: E402
from appliance.security.airgap import selftest  # noqa: E402
from appliance.security.passphrase import Cost  # noqa: E402
from appliance.security.people.persons import NewPerson  # noqa: E402
from appliance.security.supply import installed  # noqa: E402
from appliance.security.vault import unlocking  # noqa: E402
from tui import session_people  # noqa: E402
from tui.cli.entry import run  # noqa: E402

PEOPLE = {"sam": "security-admin", "olga": "privacy-officer", "ana": "operator"}
WORDS = "four quiet words of "


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of nothing, and the self-test without its children: both have tests of their own."""
    place = site.site_packages(tmp_path / "venv")
    monkeypatch.setattr(installed, "here", lambda: place)
    shut = selftest.Found(way="x", title="TCP", result="blocked", control="open", jails={"none": "blocked"})
    monkeypatch.setattr(selftest, "run", lambda: selftest.SelfTest(ways=(shut,), left_out={}))


Say = Any


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def said(*words: object, code: int = 0) -> tuple[str, str]:
        found = run([str(word) for word in words])
        out, err = capsys.readouterr()
        assert found == code, out + err
        return out, err

    return said


@pytest.fixture
def sealed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """St. Anna, sealed and unlocked, with records; the passphrase file is sam's."""
    people = [NewPerson(name=name, role=role, passphrase=WORDS + name) for name, role in PEOPLE.items()]
    session_people.initialise(home, "St. Anna", people, single=False, cost=Cost())
    try:
        site.add_data(home)
        speak(tmp_path, monkeypatch, "sam")
        yield home
    finally:
        unlocking.lock(home)


def speak(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Who types the passphrase from now on."""
    file = folder / f"{name}.words"
    file.write_text(f"{WORDS}{name}\n")
    file.chmod(0o600)
    monkeypatch.setenv("CLOISTER_PASSPHRASE_FILE", str(file))
    monkeypatch.setenv("CLOISTER_AS", name)


def outcomes(made: dict[str, Any]) -> dict[str, str]:
    return {f"{row['law']} {row['clause']}": row["outcome"] for row in made["rows"]}


def test_a_bare_site_of_one_person(home: Home, tmp_path: Path, say: Say) -> None:
    _, err = say("evidence", code=2)
    assert "cloister trust init" in err
    say("trust", "init", "st-anna")
    site.add_data(home)
    out, err = say("evidence", "--out", tmp_path, code=15)
    assert max(map(len, out.splitlines() + err.splitlines())) <= 80 + len(str(tmp_path))
    long = [line for line in out.splitlines() if len(line) > 80]
    assert [line[:7] for line in long] in ([], ["signed:", "text:  "])  # paths are there to be copied
    assert "SINGLE-PERSON MODE: no second person approved" in out
    assert "164.312(a)(1)            Access control                   does not support" in out
    assert "1/44 audit log" in err and "error: " in err and "not supported" in err
    (file,) = tmp_path.glob("evidence-st-anna-*.json")
    assert file.with_suffix(".txt").read_text().startswith("Evidence report of st-anna")
    out, _ = say("evidence", "verify", file)
    assert "as cloister/st-anna signed it" in out and "SINGLE-PERSON MODE" in out
    out, _ = say("evidence", "verify", file, "--text")
    assert file.with_suffix(".txt").read_text() in out
    for one in (file, file.with_suffix(".txt")):
        assert site.CANARY not in one.read_text()


def test_a_sealed_site_of_people(
    sealed: Home, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = json.loads(say("evidence", "--json", code=15)[0])
    told = outcomes(made)
    for clause in ("(a)(1)", "(a)(2)(i)", "(a)(2)(iii)", "(d)"):
        assert told[f"hipaa 164.312{clause}"] == shape.SUPPORTS, clause
    assert told["hipaa 164.310(d)(2)(i)-(ii)"] == told["nist row 14"] == shape.SUPPORTS
    assert told["hipaa 164.312(b)"] == shape.LACKS  # nobody has witnessed the log
    assert told["hipaa 164.308(a)(7)"] == shape.PEOPLE
    assert made["totals"][shape.FAILED] == 0 and made["mode"] == "people" and made["who"] == "sam"
    assert made["probes"]["data"]["outcome"] == shape.SUPPORTS  # read through its seal
    assert Path(made["path"]).parent == sealed.path / "evidence"
    assert site.CANARY not in Path(made["path"]).read_text()
    speak(tmp_path, monkeypatch, "ana")  # an operator writes none, and anybody checks one
    assert "not allowed" in say("evidence", code=13)[1]
    say("evidence", "verify", made["path"])
    monkeypatch.delenv("CLOISTER_AS")
    say("evidence", code=13)
    say("evidence", "verify", made["path"])


def test_a_locked_site_signs_no_report(sealed: Home, say: Say) -> None:
    unlocking.lock(sealed)
    refused = json.loads(say("evidence", "--only", "gdpr", "--json", code=12)[0])["error"]
    assert refused["code"] == "locked" and "cloister unlock" in refused["hint"]
    assert not (sealed.path / "evidence").exists() or not list((sealed.path / "evidence").iterdir())


def test_one_law_alone(home: Home, tmp_path: Path, say: Say) -> None:
    say("trust", "init", "st-anna")
    for law in rows.LAWS:
        made = json.loads(say("evidence", "--only", law, "--out", tmp_path / "x", "--json", code=2)[0])
        assert made["error"]["code"] == "config-wrong"
        (tmp_path / law).mkdir()
        made = json.loads(say("evidence", "--only", law, "--out", tmp_path / law, "--json", code=15)[0])
        assert {row["law"] for row in made["rows"]} == {law} == {made["only"]}
    assert "hipaa, gdpr" in say("evidence", "--only", "sox", code=2)[1]


def test_nothing_lacking_is_exit_code_0(home: Home, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    say("trust", "init", "st-anna")
    for name in rows.PROBES:
        monkeypatch.setitem(rows.PROBES, name, lambda look: shape.supports("It is there."))
    made = json.loads(say("evidence", "--json")[0])
    assert made["lacking"] == []


def test_a_stranger_checks_it_without_a_site(home: Home, tmp_path: Path, say: Say) -> None:
    """Another machine, the edge profile: no database, no torch, the site's card or its key."""
    say("trust", "init", "st-anna")
    made = json.loads(say("evidence", "--only", "nist", "--out", tmp_path, "--json", code=15)[0])
    card = tmp_path / "anna.card"
    say("trust", "card", "--to", card)
    block = (
        "import sys\n"
        "for name in ('torch', 'scipy', 'sklearn', 'transformers', 'peft', 'flwr', 'opacus'):\n"
        "    sys.modules[name] = None\n"
    )
    (tmp_path / "sitecustomize.py").write_text(block)
    elsewhere = tmp_path / "elsewhere"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "CLOISTER_HOME": str(elsewhere)}
    argv = [
        sys.executable,
        "-m",
        "tui.launch",
        "evidence",
        "verify",
        made["path"],
        "--json",
        "--key",
        str(card),
    ]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == made["rows"]
    assert not elsewhere.exists()
    say("evidence", "verify", made["path"], "--key", made["key"])


def test_an_altered_report_is_refused_with_the_reason(home: Home, tmp_path: Path, say: Say) -> None:
    say("trust", "init", "st-anna")
    made = json.loads(say("evidence", "--only", "nist", "--out", tmp_path, "--json", code=15)[0])
    path = Path(made["path"])
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"outcome":"does not support"', b'"outcome":"supports"'))
    _, err = say("evidence", "verify", path, code=12)
    assert "altered after it was signed" in err and err.count("\n") == 2
    path.write_bytes(content[:-9])
    told = json.loads(say("evidence", "verify", path, "--json", code=12)[0])
    assert told["error"]["code"] == "evidence-refused"
    path.write_bytes(content)
    assert "another key" in say("evidence", "verify", path, "--key", "ab" * 32, code=12)[1]
    assert "no such key file" in say("evidence", "verify", path, "--key", tmp_path / "none", code=3)[1]
    other = tmp_path / "other"
    assert "--key" in say("evidence", "verify", path, "--home", other, code=2)[1]


def test_help_teaches(say: Say) -> None:
    out, _ = say("evidence", "--help")
    flat = " ".join(out.split())
    for words in ("no legal opinion", "The exit code is 15", "hipaa, gdpr", "verify"):
        assert words in flat, words
