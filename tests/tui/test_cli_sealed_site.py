"""A site with people, as real processes: sealed at init, unlocked by each at a terminal of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "appliance"))
import serve_support as support  # noqa: E402

PEOPLE = {"sam": "security-admin", "olga": "privacy-officer", "ana": "operator"}
CANARY = "zq-canary-7731"

Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def words(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name in [*PEOPLE, "nobody"]:
        found[name] = tmp_path / f"{name}.txt"
        found[name].write_text(f"four quiet words of {name}\n")
        found[name].chmod(0o600)
    return found


@pytest.fixture
def cloister(tmp_path: Path) -> Iterator[Command]:
    """The command line in a terminal session of its own for each name: what one signs, another does not."""
    shells: dict[str, subprocess.Popen[str]] = {}
    env = {**os.environ, "CLOISTER_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    env.pop("CLOISTER_PASSPHRASE_FILE", None)

    def run(at: str, *argv: str) -> tuple[int, dict[str, Any]]:
        if at not in shells:
            shells[at] = subprocess.Popen(
                ["sh"], stdin=-1, stdout=-1, stderr=-1, text=True, env=env, start_new_session=True
            )
        shell, out = shells[at], tmp_path / f"{at}.out"
        line = " ".join([sys.executable, "-m", "tui.launch", *argv, "--json"])
        assert shell.stdin is not None and shell.stdout is not None
        shell.stdin.write(f"{line} > {out} 2> {out}.err < /dev/null; echo $?\n")
        shell.stdin.flush()
        code = int(shell.stdout.readline())
        text = out.read_text()
        return code, json.loads(text) if text else {"error": Path(f"{out}.err").read_text()}

    yield run
    run("end", "lock")
    for shell in shells.values():
        shell.terminate()
        shell.communicate()


def init(cloister: Command, words: dict[str, Path]) -> None:
    options = [part for name, role in PEOPLE.items() for part in ("--person", f"{name}:{role}")]
    options += [part for name in PEOPLE for part in ("--passphrase-file", f"{name}={words[name]}")]
    code, made = cloister("ana", "init", "--site", "Anna", *options)
    assert (code, made["mode"], made["sealed"]) == (0, "people", True), made


def unlock(cloister: Command, words: dict[str, Path], name: str, given: str | None = None) -> int:
    return cloister(name, "unlock", "--as", name, "--passphrase-file", str(words[given or name]))[0]


def test_people_unlock_sign_and_lock(cloister: Command, words: dict[str, Path], tmp_path: Path) -> None:
    records = tmp_path / "records.csv"
    records.write_text(
        "patient,text,label\n"
        + "".join(f"p{n},{CANARY} number {n} was seen today,a{n % 2}\n" for n in range(40))
    )
    init(cloister, words)
    # Nobody is signed in by being there, and a wrong passphrase signs nobody in.
    data = ("data", "import", str(records), "--name", "inbox", "--text", "text", "--label", "label")
    data += ("--unit", "patient")
    assert cloister("ana", *data)[0] == 13
    assert unlock(cloister, words, "ana", "nobody") != 0
    assert cloister("ana", *data)[0] == 13
    assert unlock(cloister, words, "ana") == 0
    code, made = cloister("ana", *data)
    assert code == 0, made
    # One's terminal is not another's.
    assert cloister("olga", "data", "show", "inbox")[0] == 13
    assert unlock(cloister, words, "olga") == 0
    # Two people raise a budget, signing in the agent; one alone does not.
    assert cloister("olga", "budget", "set", "inbox", "--epsilon", "4")[0] == 0
    code, asked = cloister("ana", "budget", "set", "inbox", "--epsilon", "9")
    assert code == 13 and asked["error"]["code"] == "needs-approval"
    (request,) = cloister("ana", "approve", "list")[1]["requests"]
    assert cloister("ana", "approve", "yes", request["id"])[0] == 2  # who asks has said yes already
    assert cloister("olga", "approve", "yes", request["id"])[0] == 0
    assert cloister("ana", "budget", "set", "inbox", "--epsilon", "9")[0] == 0
    # What is at rest holds no record; locked, nothing can be read.
    home = tmp_path / "home"
    found = [file for file in home.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()]
    assert found == []
    assert cloister("ana", "lock")[0] == 0
    code, _ = cloister("ana", "data", "show", "inbox")
    assert code != 0
    assert unlock(cloister, words, "olga") == 0
    assert cloister("olga", "audit", "verify")[0] == 0


def test_who_is_added_unlocks_after_a_start_and_who_is_removed_does_not(
    cloister: Command, words: dict[str, Path], tmp_path: Path
) -> None:
    init(cloister, words)
    for name in PEOPLE:
        assert unlock(cloister, words, name) == 0
    words["nora"] = words["nobody"]
    add = ("people", "add", "nora", "operator", "--passphrase-file", str(words["nora"]))
    code, asked = cloister("sam", *add)
    assert code == 0, asked
    assert cloister("olga", "approve", "yes", asked["id"])[0] == 0
    assert cloister("ana", "lock")[0] == 0
    assert unlock(cloister, words, "nora") == 0, "nobody else is there"
    assert cloister("nora", "data", "list")[0] == 0
    code, asked = cloister("sam", "people", "remove", "nora")
    assert code == 13, "sam is to sign in again: the lock ended that"
    for name in PEOPLE:
        assert unlock(cloister, words, name) == 0
    code, asked = cloister("sam", "people", "remove", "nora")
    assert code == 0, asked
    assert cloister("olga", "approve", "yes", asked["id"])[0] == 0
    slots = {one["name"] for one in cloister("olga", "vault", "status")[1]["slots"]}
    assert slots == set(PEOPLE)
    assert cloister("nora", "data", "list")[0] == 13
    assert cloister("ana", "lock")[0] == 0
    assert unlock(cloister, words, "nora") == 12
    assert cloister("ana", "vault", "status")[1]["locked"] is True
    assert unlock(cloister, words, "ana") == 0


def test_a_model_leaves_a_sealed_site_when_two_people_agree(
    cloister: Command, words: dict[str, Path], tmp_path: Path
) -> None:
    init(cloister, words)
    for name in PEOPLE:
        assert unlock(cloister, words, name) == 0
    code, made = cloister("ana", "model", "import", str(support.gguf()), "--name", "desk")
    assert code == 0, made
    sealed = tmp_path / "home" / "models" / "desk"
    assert all(b"GGUF" not in file.read_bytes()[:64] for file in sealed.rglob("*") if file.is_file())
    there = ("--home", str(tmp_path / "edge"))
    words_of_edge = cloister("edge", "trust", "init", "edge-1", "--role", "edge", *there)[1]["words"]
    card = str(tmp_path / "edge.card")
    cloister("edge", "trust", "card", "--to", card, *there)
    words_of_edge = words_of_edge.replace(" ", "\\ ")
    add = ("trust", "add", card, "--words", words_of_edge, "--compared-by", "sam", "--compared-by", "olga")
    export = ("bundle", "export", "desk", "--to", "edge-1", "--out", str(tmp_path / "desk.clb"))
    # Each of the two needs a second person, who is the officer; the operator adds no trust.
    assert cloister("ana", *add)[1]["error"]["code"] == "not-allowed"
    for who, what in (("sam", add), ("ana", export)):
        assert cloister(who, *what)[1]["error"]["code"] == "needs-approval"
        assert not (tmp_path / "desk.clb").exists()
        (request,) = [
            one for one in cloister(who, "approve", "list")[1]["requests"] if one["state"] == "pending"
        ]
        assert cloister("olga", "approve", "yes", request["id"])[0] == 0
        code, done = cloister(who, *what)
        assert code == 0, done
    # Their yes was for one export.
    again = (*export[:-1], str(tmp_path / "again.clb"))
    assert cloister("ana", *again)[1]["error"]["code"] == "needs-approval"
    signer = str(tmp_path / "anna.card")
    cloister("olga", "trust", "card", "--to", signer)
    verify = ("bundle", "verify", str(tmp_path / "desk.clb"), *there)
    assert cloister("edge", *verify)[1]["error"]["code"] == "bundle-stranger"
    code, told = cloister("edge", *verify, "--signer", signer)
    assert (code, told["verified"], told["signer"]) == (0, True, "Anna")
    sizes = {one["path"]: one["size"] for one in told["files"]}
    assert sizes["desk.gguf"] == support.gguf().stat().st_size
    # What left carries the log as it was signed; the log must extend it when it comes back.
    assert cloister("olga", "audit", "verify")[1]["ok"]
