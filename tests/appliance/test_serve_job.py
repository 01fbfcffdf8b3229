"""Which models are served, on which ports, and how serving ends."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import serve_support as support
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.core.db import reading, transaction
from appliance.core.errors import Busy, ConfigWrong, GateFailed, ModelRejected, NotFound
from appliance.core.events import append_event
from appliance.core.job import Job
from appliance.core.processes import began
from appliance.models import registry
from appliance.models.registry import Model
from appliance.ops import jobs
from appliance.security import audit
from appliance.serve import client
from appliance.serve.checked import CheckedFile
from appliance.serve.chosen import choose
from appliance.serve.job import run
from appliance.serve.listen import open_port, url_of


def test_only_a_model_that_passed_is_served(tmp_path: Path) -> None:
    home = support.new_home(tmp_path)
    with transaction(home) as link:
        link.execute("DELETE FROM reports")
    with pytest.raises(GateFailed, match="has no report") as caught:
        choose(home, support.NAME, gated=True)
    assert "cloister evaluate" in caught.value.hint
    assert choose(home, support.NAME, gated=False).name == support.NAME
    with pytest.raises(NotFound):
        choose(home, "nothing", gated=True)


def test_a_base_that_was_not_tuned_here_is_not_sent_to_an_evaluation(tmp_path: Path) -> None:
    home = support.new_home(tmp_path)
    registry.add(home, Model(name="bare", kind="base", path=tmp_path, sha256="0", size=1), who="t")
    file = replace(registry.get(home, support.NAME), name="bare-f16", parent="bare")
    registry.add(home, file, who="t")
    for name in ("bare", "bare-f16"):
        with pytest.raises(GateFailed, match="was not tuned here") as caught:
            choose(home, name, gated=True)
        assert "--ungated" in caught.value.hint and "evaluate" not in caught.value.hint
        assert choose(home, name, gated=False).name == "bare-f16"


def test_a_model_that_was_measured_and_failed_is_told_why(tmp_path: Path) -> None:
    home = support.new_home(tmp_path, passed=False)
    with pytest.raises(GateFailed, match=r"did not pass the gate\.$"):
        choose(home, support.NAME, gated=True)
    page = home.reports / "0002.html"
    with transaction(home) as link:
        link.execute(
            "INSERT INTO reports (model, dataset, created, job, passed, path)"
            " VALUES (?, 'd@1', '2', '2', 0, ?)",
            (support.NAME, str(page)),
        )
    clauses = [
        {"name": "chance", "need": "a", "got": "b", "passed": True},
        {"name": "accuracy", "need": "+15%", "got": "+3.0%", "passed": False},
    ]
    gates = [{"model": "other", "clauses": []}, {"model": support.NAME, "clauses": clauses, "notes": []}]
    for content, said in (
        (json.dumps({"gates": gates}), "gate: accuracy needs +15%, got +3.0%."),
        (json.dumps({"gates": [{**gates[1], "clauses": [], "notes": ["No base."]}]}), "gate: No base."),
        ("{", "did not pass the gate."),
    ):
        page.with_suffix(".json").write_text(content)
        with pytest.raises(GateFailed) as caught:
            choose(home, support.NAME, gated=True)
        assert caught.value.message.endswith(said)
        assert str(page) in caught.value.hint and "evaluate" not in caught.value.hint


def test_a_partial_report_neither_lets_a_model_be_served_nor_takes_that_away(tmp_path: Path) -> None:
    home = support.new_home(tmp_path)
    with transaction(home) as link:
        link.execute("UPDATE reports SET partial = 1")
    with pytest.raises(GateFailed, match="only measured in part") as caught:
        choose(home, support.NAME, gated=True)
    assert f"cloister evaluate {support.NAME}" in caught.value.hint
    with transaction(home) as link:
        link.execute("UPDATE reports SET partial = 0")
        link.execute(
            "INSERT INTO reports (model, dataset, created, job, passed, path, partial)"
            " VALUES (?, 'd@1', '9', '9', 0, '', 1)",
            (support.NAME,),
        )
    assert choose(home, support.NAME, gated=True).name == support.NAME


def test_an_adapter_stands_for_the_smallest_file_made_from_it(tmp_path: Path) -> None:
    home = support.new_home(tmp_path)
    file = registry.get(home, support.NAME)
    adapter = replace(file, name="lora", kind="adapter", parent=None)
    registry.add(home, adapter, who="tests")
    with pytest.raises(NotFound, match="no GGUF"):
        choose(home, "lora", gated=False)
    for name, size in (("lora-q8", 50), ("lora-q4", 20)):
        registry.add(home, replace(file, name=name, parent="lora", size=size), who="tests")
    assert choose(home, "lora", gated=False).name == "lora-q4"
    with pytest.raises(GateFailed):
        choose(home, "lora", gated=True)


def test_a_file_that_changed_is_not_served(tmp_path: Path) -> None:
    home = support.new_home(tmp_path)
    model = registry.get(home, support.NAME)
    copy = tmp_path / "copy.gguf"
    shutil.copy(model.path, copy)
    CheckedFile(replace(model, path=copy)).close()
    with copy.open("r+b") as stream:
        stream.seek(1_000_000)
        stream.write(b"\x00\x01\x02\x03")
    with pytest.raises(ModelRejected, match="changed"):
        CheckedFile(replace(model, path=copy))
    with pytest.raises(NotFound):
        CheckedFile(replace(model, path=tmp_path / "gone"))


def test_a_taken_port_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    home = support.new_home(tmp_path)
    (tmp_path / "job").mkdir()
    job = Job(id="1", kind="serve", folder=tmp_path / "job", home=home)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Busy, match=str(port)) as caught:
            run({"model": support.NAME, "port": port}, job)
    assert "--port" in caught.value.hint
    assert not (tmp_path / "job" / "engine").exists()
    first = open_port("127.0.0.1", 0, tls=False)
    with first, pytest.raises(Busy):
        open_port("127.0.0.1", first.getsockname()[1], tls=False)


def test_a_port_of_our_own_is_named_with_its_job(tmp_path: Path) -> None:
    home = support.new_home(tmp_path / "home")
    (tmp_path / "job").mkdir()
    mine = Job(id="9999", kind="serve", folder=tmp_path / "job", home=home)
    other = home.jobs / "0037"
    other.mkdir()
    with transaction(home) as link:
        link.execute(
            "INSERT INTO jobs (id, kind, title, who, created, pid, pid_started)"
            " VALUES ('0037', 'serve', '', '', '', ?, ?)",
            (os.getpid(), began(os.getpid())),
        )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        def told() -> Busy:
            with pytest.raises(Busy) as caught:
                run({"model": support.NAME, "port": port}, mine)
            return caught.value

        assert "another program" in told().message
        (other / "spec.json").write_text(json.dumps({"spec": {"port": port}}))
        assert "job 0037 serves there" in told().message
        assert "cloister job stop 0037" in told().hint and "--port" in told().hint
        append_event(other / "events.jsonl", "ready", url=f"http://127.0.0.1:{port + 1}")
        assert "another program" in told().message
        append_event(other / "events.jsonl", "ready", url=f"http://127.0.0.1:{port}")
        assert "job 0037" in told().message
        with transaction(home) as link:
            link.execute("UPDATE jobs SET pid_started = 1")
        assert "another program" in told().message


def test_nothing_leaves_loopback_without_tls() -> None:
    for host in ("0.0.0.0", "::"):  # noqa: S104
        with pytest.raises(ConfigWrong, match="clear"):
            open_port(host, 0, tls=False)
    with pytest.raises(ConfigWrong):
        open_port("no.such.host.invalid", 0, tls=False)
    with pytest.raises(ConfigWrong):
        open_port("127.0.0.1", 99999, tls=False)
    with open_port("localhost", 0, tls=False) as listener:
        assert url_of(listener, tls=True).startswith("https://")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls_serves_and_a_stop_lets_open_answers_finish(tmp_path: Path) -> None:
    home = support.new_home(tmp_path / "home", labels=False)
    cert, key_file = certificate(tmp_path)
    tls = {"tls_cert": str(cert), "tls_key": str(key_file)}
    with support.endpoint(home, engine="in-process", threads=1, **tls) as (job, url, key):
        assert url.startswith("https://127.0.0.1:")
        messages = [{"role": "user", "content": "hello"}]
        answer = client.stream(url, key, support.NAME, messages, ca=cert, **support.ENDLESS)
        first = next(answer)
        stopping = threading.Thread(target=jobs.stop, args=(home, job.id), kwargs={"who": "tests"})
        stopping.start()
        assert len(first + "".join(answer)) > 100
        stopping.join()
        view = jobs.view(home, job.id)
        assert view.state == "done"
        result = json.loads((view.folder / "result.json").read_bytes())
        assert (result["requests"], result["engine"]) == (1, "in-process")
        assert result["tokens"] == 400
    with reading(home) as link:
        started = [entry for entry in audit.tail(link, 20) if entry["what"] == "serve.start"]
    assert [(entry["target"], entry["ungated"]) for entry in started] == [(support.NAME, False)]


def test_a_killed_job_takes_its_engine_along_and_starts_again(tmp_path: Path) -> None:
    home = support.new_home(tmp_path / "home")
    with support.endpoint(home, threads=1) as (job, _, key):
        process, engine = support.processes(job)
        process.kill()
        support.until(lambda: jobs.view(home, job.id).state == "died")
        support.until(lambda: support.ended(engine))
        jobs.resume(home, job.id, who="tests")
        support.until(lambda: jobs.view(home, job.id).state == "running")
        support.until(
            lambda: len([e for e in jobs.view(home, job.id).events if e["event"] == "ready"]) == 2, 20
        )
        ready = [event for event in jobs.view(home, job.id).events if event["event"] == "ready"][-1]
        messages = [{"role": "user", "content": "thanks!"}]
        assert client.ask(ready["url"], key, support.NAME, messages).label in support.LABELS
