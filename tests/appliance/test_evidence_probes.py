"""Probes of the log, files, network and origin: each says both, for the reason it is there for."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import evidence_support as site
import log_support as logs
import pytest
import supply_support
from evidence_support import CANARY, ask, now, outcome

from appliance.core.db import transaction
from appliance.core.home import Home
from appliance.core.processes import began
from appliance.models import registry, removal
from appliance.ops import data_removal
from appliance.ops.evidence import probes_log, probes_network, shape
from appliance.ops.evidence.probes_lineage import holders
from appliance.security import audit, keys
from appliance.security.airgap import policy, selftest
from appliance.security.log import witness
from appliance.security.people import mode
from appliance.security.supply import baseline
from appliance.serve.certificate import site_certificate

YES, NO, NONE = shape.SUPPORTS, shape.LACKS, shape.ABSENT


def note(home: Home, what: str = "test", count: int = 1) -> None:
    with transaction(home) as link:
        for number in range(count):
            audit.record(link, who="mira", what=what, target=str(number))


# --- the log


def test_a_log_that_is_whole_and_one_that_is_not(home: Home) -> None:
    note(home, count=9)
    found = ask(home, "audit log")
    assert (found.outcome, found.figures["entries"]) == (YES, 9) and "not signed before" in found.text
    witness.make(home, site.KEY, who="mira", clock=now)
    assert "signed by the site up to entry 10" in ask(home, "audit log").text
    with logs.tampering(home) as link:
        link.execute("UPDATE audit SET entry = replace(entry, 'mira', 'joe') WHERE seq = 4")
    found = ask(home, "audit log")
    assert found.outcome == NO and "entry 4" in found.text and found.figures["intact"] == 3
    assert outcome(home, "witnesses") == NO


def test_a_log_is_witnessed_once_a_checkpoint_came_back(home: Home) -> None:
    note(home, count=3)
    made = witness.make(home, site.KEY, who="mira", clock=now)
    assert outcome(home, "witnesses") == NO
    witness.add(home, made.note, site.look(home).keys, who="mira", source="a stick")
    found = ask(home, "witnesses")
    assert (found.outcome, found.figures) == (YES, {"witnessed": 4, "after": 1})


def test_a_log_that_nobody_looks_after(home: Home) -> None:
    note(home)
    assert outcome(home, "log review") == NO
    witness.make(home, site.KEY, who="mira", clock=now)
    assert outcome(home, "log review") == YES
    later = shape.Look(home, now() + timedelta(days=probes_log.REVIEW_DAYS + 1))
    assert probes_log.review(later).outcome == NO


def test_a_log_that_can_be_shortened(home: Home) -> None:
    assert outcome(home, "retention") == NONE
    note(home, count=3)
    assert outcome(home, "retention") == YES
    with transaction(home) as link:
        guards = link.execute("SELECT sql FROM sqlite_master WHERE name = 'audit_no_DELETE'").fetchone()[0]
        link.execute("DROP TRIGGER audit_no_DELETE")
    assert "audit_no_DELETE" in ask(home, "retention").text and outcome(home, "retention") == NO
    with transaction(home) as link:
        link.execute("DELETE FROM audit WHERE seq = 1")
        link.execute(guards)
    assert "begins with entry 2" in ask(home, "retention").text and outcome(home, "retention") == NO


def test_requests_are_held_against_the_log(home: Home) -> None:
    assert outcome(home, "request log") == NONE
    from appliance.security.log.request_rows import _COLUMNS, rows_hash

    row = (1, "r1", "asked", "2026-01-01", "k", "m", "", 3, 0, "ab")
    with transaction(home) as link:
        link.execute(f"INSERT INTO request_log ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)", row)  # noqa: S608
        audit.record(link, who="x", what="requests", target="1", count=1, rows=rows_hash([row]))
    assert ask(home, "request log").figures == {"asked": 1, "answered": 0}
    with transaction(home) as link:
        link.execute("UPDATE request_log SET model = 'other'")
    assert outcome(home, "request log") == NO


# --- files


def test_a_model_file_that_was_swapped(home: Home) -> None:
    assert outcome(home, "models") == NONE
    model = site.add_file(home, "desk")
    site.add_file(home, "other")
    assert outcome(home, "models") == YES
    model.path.write_bytes(b"GGUF of somebody else")
    found = ask(home, "models")
    assert found.outcome == NO and found.figures["changed"] == ["desk"]
    model.path.unlink()
    assert outcome(home, "models") == NO


def test_records_that_were_changed(home: Home) -> None:
    assert outcome(home, "data") == NONE
    made = site.add_data(home)
    found = ask(home, "data")
    assert found.outcome == YES and CANARY not in str(found)
    file = made.folder / "val.jsonl"
    file.write_bytes(file.read_bytes().replace(b"4419", b"4420"))
    assert ask(home, "data").figures["changed"] == ["inbox@1"]
    file.unlink()
    assert outcome(home, "data") == NO


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supply")
    return supply_support.make_environment(folder, supply_support.make_wheelhouse(folder / "house"))


def test_software_is_held_to_its_packages_and_to_what_was_recorded(
    home: Home, installed: Path, tmp_path: Path
) -> None:
    place = supply_support.copied(installed, tmp_path / "env")
    found = ask(home, "software", place=place)
    assert found.outcome == NO and "nothing was recorded" in found.text
    baseline.record(home, who="mira", place=place)
    assert outcome(home, "software", place=place) == YES
    supply_support.rewrite(place, "tinylib.py", b"def answer():\n    return 43\n")  # RECORD altered with it
    found = ask(home, "software", place=place)
    assert found.outcome == NO and "tiny_lib" in found.text
    (place / "tinyapp" / "page.html").write_bytes(b"<b>")
    assert "tinyapp/page.html (altered)" in ask(home, "software", place=place).text


def test_what_the_software_is_made_of(home: Home, installed: Path, tmp_path: Path) -> None:
    assert ask(home, "sbom", place=installed).figures == {"components": 1}  # beside itself
    assert outcome(home, "sbom", place=site.site_packages(tmp_path)) == NO


# --- the network


def test_the_air_gap(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(home, "air gap")
    assert found.outcome == YES and found.figures["blocked"] == found.figures["tried"] > 10
    hole = selftest.Found(way="x", title="plain TCP", result="open", control="open", jails={"none": "open"})
    monkeypatch.setattr(selftest, "run", lambda: selftest.SelfTest(ways=(hole,), left_out={}))
    found = ask(home, "air gap")
    assert found.outcome == NO and "plain TCP" in found.text
    monkeypatch.setattr(selftest, "run", lambda: selftest.SelfTest(ways=(), left_out={}))
    assert outcome(home, "air gap") == NO  # a test that saw nothing open proves nothing
    policy.set_policy(home, policy.OFF, who="mira", because="a kernel without seccomp")
    found = ask(home, "air gap")
    assert found.outcome == NO and "policy" in found.text and "kernel" not in found.text


@contextmanager
def listening(host: str, context: ssl.SSLContext | None) -> Iterator[int]:
    """A server of this process that shakes hands (without `context`: answers in plain)."""
    server = socket.create_server((host, 0))
    port, over = server.getsockname()[1], threading.Event()
    server.settimeout(0.1)

    def answer() -> None:
        while not over.is_set():
            try:
                link, _ = server.accept()
            except TimeoutError:
                continue
            with closing(link):
                link.settimeout(5)
                try:
                    if context is None:
                        link.sendall(b"hello\n")
                    else:
                        with context.wrap_socket(link, server_side=True) as secured:
                            secured.recv(1)
                except OSError:
                    continue

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield port
    finally:
        over.set()
        thread.join()
        server.close()


def be_a_job(home: Home, started: float) -> None:
    with transaction(home) as link:
        link.execute("DELETE FROM jobs")
        link.execute(
            "INSERT INTO jobs (id, kind, title, who, created, pid, pid_started) VALUES"
            " ('0001', 'serve', '', '', '', ?, ?)",
            (os.getpid(), started),
        )


def test_listeners_speak_tls_1_3_or_are_for_this_machine(home: Home) -> None:
    made = site_certificate(home, "127.0.0.1", who="mira")
    newest, older = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    for context in (newest, older):
        context.load_cert_chain(made.certificate, made.key)
    newest.minimum_version = ssl.TLSVersion.TLSv1_3
    older.minimum_version = ssl.TLSVersion.TLSv1_2
    be_a_job(home, began(os.getpid()))
    with listening("127.0.0.1", None) as port:
        found = ask(home, "listeners")
        assert found.outcome == YES and f"127.0.0.1 port {port}: this machine only" in found.text
    for context, told, words in (
        (newest, YES, "TLS 1.3 only"),
        (older, NO, "older TLS"),
        (None, NO, "no TLS 1.3"),
    ):
        with listening("0.0.0.0", context):  # noqa: S104
            found = ask(home, "listeners")
            assert found.outcome == told and words in found.text, words
            be_a_job(home, 1.0)  # another process had this number
            assert outcome(home, "listeners") == NONE
            be_a_job(home, began(os.getpid()))
    assert outcome(home, "listeners") == NONE


def test_bundles_have_suites_that_seal(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(home, "bundles") == YES
    monkeypatch.setattr(probes_network, "SUITES", ("x25519+none",))
    assert outcome(home, "bundles") == NO


def test_api_keys_end(home: Home) -> None:
    assert outcome(home, "api keys") == NONE
    keys.new_key(home, "ward", "mira", expires=now() + timedelta(days=90))
    assert outcome(home, "api keys") == YES
    name, _ = keys.new_key(home, "lab", "mira")
    found = ask(home, "api keys")
    assert found.outcome == NO and "without an end: lab" in found.text
    keys.revoke(home, name, "mira")
    assert outcome(home, "api keys") == YES
    name, _ = keys.new_key(home, "desk", "mira", expires=now() + timedelta(days=365))
    assert "more than 90 days: desk" in ask(home, "api keys").text
    after = shape.Look(home, now() + timedelta(days=400))
    assert probes_network.api_keys(after).outcome == NONE  # expired keys open nothing


def test_certificates_are_valid_now(home: Home) -> None:
    assert outcome(home, "certificate") == NONE
    made = site_certificate(home, "127.0.0.1", who="mira")
    assert outcome(home, "certificate") == YES
    assert probes_network.certificate(shape.Look(home, made.ends + timedelta(days=1))).outcome == NO


# --- origin


def test_which_models_hold_whose_records(home: Home) -> None:
    assert outcome(home, "lineage") == NONE
    site.add_data(home)
    site.add_file(home, "base", kind="base")
    site.add_file(home, "lora", kind="adapter", dataset="inbox@1", parent="base")
    site.add_file(home, "lora-q4", parent="lora")
    held, lost = holders(home)
    assert (held, lost) == ({"inbox@1": ["lora", "lora-q4"]}, [])
    assert ask(home, "lineage").figures["holders"] == held
    site.add_file(home, "old", kind="adapter", dataset="gone@1", parent="base")
    found = ask(home, "lineage")
    assert found.outcome == NO and "old" in found.text


def test_removals(home: Home) -> None:
    assert outcome(home, "erasure") == NONE
    model = site.add_file(home, "desk")
    removal.remove(home, model, who="mira")
    assert ask(home, "erasure").figures == {"removals": 1} and outcome(home, "erasure") == YES
    grave = home.models / ".removed-desk"
    grave.mkdir()
    assert outcome(home, "erasure") == NO
    grave.rmdir()
    site.add_data(home)
    data_removal.remove(home, "inbox", who="mira")
    assert ask(home, "erasure").figures == {"removals": 2} and outcome(home, "erasure") == YES
    with transaction(home) as link:  # put back behind the log's back
        link.execute("UPDATE datasets SET facts = json_remove(facts, '$.removed')")
    assert "inbox@1" in ask(home, "erasure").text and outcome(home, "erasure") == NO


def test_whose_records_and_who_is_found(home: Home) -> None:
    assert outcome(home, "units") == outcome(home, "identifiers") == NONE
    site.add_data(home)
    assert "6 records of 1,002 patients" in ask(home, "units").text and outcome(home, "units") == YES
    assert outcome(home, "identifiers") == NO and "Not measured here" in ask(home, "identifiers").text
    site.add_data(home, unit=None, job="0003")
    assert outcome(home, "units") == NO


def test_what_is_written_of_a_trained_model(home: Home) -> None:
    for name in ("documentation", "evaluation"):
        assert outcome(home, name) == NONE
    site.add_data(home)
    site.add_private(home)
    assert outcome(home, "documentation") == outcome(home, "evaluation") == NO
    site.add_report(home, "lora-1", passed=True)
    assert outcome(home, "documentation") == outcome(home, "evaluation") == YES
    site.add_file(home, "lora-1-q4", parent="lora-1")  # what is served is what has to pass
    assert "lora-1-q4" in ask(home, "evaluation").text
    site.add_report(home, "lora-1-q4", passed=True)
    assert outcome(home, "evaluation") == YES
    site.add_report(home, "lora-1-q4", passed=False, created="2026-11-02")
    assert outcome(home, "evaluation") == NO  # the newest counts
    site.restate(home, "lora-1", training={"settings": None})
    assert "lora-1 (settings)" in ask(home, "documentation").text


def test_a_record_of_processing_names_the_site(home: Home) -> None:
    assert outcome(home, "processing") == NO
    mode.write_anchor(home, mode.Anchor(mode=mode.SINGLE, site="St. Anna"))
    site.add_data(home)
    found = ask(home, "processing")
    assert found.outcome == YES and found.figures["datasets"] == ["inbox@1"]
    assert registry.models(home) == [] and "0 models" in found.text


def test_the_probes_load_nothing_heavy() -> None:
    import subprocess

    code = "import sys, appliance.ops.evidence.sign; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "scipy", "transformers", "numpy", "sklearn"} & set(done.stdout.split())
