"""What the product writes in a sealed home, and that no byte of it can be read without the keys."""

from __future__ import annotations

import asyncio
import csv
import os
import ssl
import subprocess
import sys
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

import leak_support
import pytest
import serve_support as support
from vault_support import agent, sealed_home, unlocked

from appliance.core import files, reading
from appliance.core.db import reading as looking
from appliance.core.errors import ModelRejected
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.core.sealing import Locked, SealBroken
from appliance.core.vaulted import MAGIC
from appliance.data import overlap, store
from appliance.data.job import run as import_data
from appliance.models import importing, registry
from appliance.models.llama import LlamaFile
from appliance.models.registry import Model
from appliance.ops import jobs
from appliance.security.log.request_rows import find_prompt, prompt_mac
from appliance.security.log.requests import RequestLog
from appliance.serve import feedback, review
from appliance.serve import job as serving
from appliance.serve.checked import CheckedFile
from appliance.serve.documents import index
from appliance.serve.documents.indexing import update
from appliance.serve.documents.retrieve import retrieve
from appliance.serve.engine import Settings, native_binary, pick_engine
from appliance.serve.feedback import Answers
from appliance.serve.header import read_header
from tui.session_bundle import identity
from tui.site_key import make_site_key, site_key

CANARY = leak_support.canary(1)
COLUMNS = {"text": "message", "label": "queue", "unit": "patient"}


def test_the_pipeline_leaves_no_canary_in_a_sealed_home(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with unlocked(home, master):
        assert _pipeline(home, tmp_path / "sources") == []
        memory = _in_memory()
    assert memory  # the work was done somewhere
    found = _scan(home.path)
    assert found == []
    with pytest.raises(Locked):  # although this process had opened a copy of it
        retrieve(home, ["policies"], f"when is {CANARY} there")
    with pytest.raises(Locked):
        store.read(store.get(home, "letters"), "train")
    assert [dataset.name for dataset in store.datasets(home)] == ["letters"]  # lists are no secret


def test_the_same_scan_finds_the_canary_in_a_plain_home(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    assert any("draft" in file for file in _pipeline(home, tmp_path / "sources"))
    areas = {file.split("/")[0] for file in _scan(home.path)}
    assert areas >= {"datasets", "feedback", "documents", "jobs", "reports", "models"}


def _pipeline(home: Home, sources: Path) -> list[str]:
    """Parts of every area, written by the code that writes them, read back by the code that reads them.

    Returns the files with the canary that lay in the home while documents were indexed.
    """
    seen: list[str] = []
    (sources / "documents").mkdir(parents=True)
    with (sources / "letters.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["patient", "message", "queue"])
        rows.writerows([f"P{n % 40}", f"{CANARY} has a cough, number {n}", "ab"[n % 2]] for n in range(120))
    job = Job(id="0001", kind="import", folder=home.jobs / "0001", home=home)
    job.folder.mkdir()
    files.write_json(job.folder / "spec.json", {"kind": "import", "spec": {"ask": CANARY}})
    import_data({"path": str(sources / "letters.csv"), "name": "letters", "columns": COLUMNS}, job)
    dataset = store.get(home, "letters")
    read = [record for split in store.SPLITS for record in store.read(dataset, split)]
    assert len(read) == 120
    assert all(CANARY in record.text for record in read)
    assert sum(1 for _ in overlap._records(dataset)) == 120

    answers = Answers()
    asked = [{"role": "user", "content": f"Is {CANARY} ill?"}]
    answers.keep("a1", "key1", model="m", messages=asked, text="Yes.")
    found = feedback.give(home, answers, "key1", {"answer_id": "a1", "thumb": 1, "correction": f"{CANARY}!"})
    assert review.read_feedback(home, found)[1].correction == f"{CANARY}!"

    (sources / "documents" / "a.txt").write_text(f"The doctor {CANARY} is there from two to six.\n" * 30)
    for text in ("", "And on Sundays."):  # a second go copies the first index
        (sources / "documents" / "b.txt").write_text(f"{CANARY} {text}")
        update(
            home,
            "policies",
            sources / "documents",
            job="0002",
            who="me",
            say=lambda *_: seen.extend(_scan(home.path)),
        )
    (passage, *_) = retrieve(home, ["policies"], f"when is {CANARY} there")
    assert CANARY in passage.text

    files.write_json(home.reports / "0003.json", {"sample": CANARY})
    files.write_bytes(home.reports / "0003.html", CANARY.encode())
    with files.replacing(job.folder / "checkpoint.safetensors") as draft:
        draft.write_text(CANARY)
    with reading.local_path(job.folder / "checkpoint.safetensors") as plain:
        assert plain.read_text() == CANARY
    with files.replacing_folder(home.models / "adapter") as draft:
        (draft / "adapter_config.json").write_text(CANARY)
    assert reading.local(home.models / "adapter").joinpath("adapter_config.json").read_text() == CANARY
    work = files.work_folder(job.folder / "work")
    (work / "F16.gguf").write_text(CANARY)
    job.log("done")
    return seen


def _in_memory() -> list[Path]:
    from appliance.security.vault import opened

    return list(opened._folders[os.getpid()].iterdir())


def _scan(folder: Path) -> list[str]:
    """The files with the canary in any form."""
    found = leak_support.scan([folder], leak_support.forms())
    return sorted({Path(leak.path.partition("!")[0]).relative_to(folder).as_posix() for leak in found})


def test_a_sealed_model_is_checked_loaded_and_found_changed(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with unlocked(home, master):
        model = importing.import_base(home, importing.DEMO_BASE, "demo", who="me")
        assert registry.intact(home, "demo")[0].sha256 == files.sha256_folder(importing.DEMO_BASE)
        shipped = [file for file in importing.DEMO_BASE.iterdir() if (model.path / file.name).exists()]
        assert model.size == sum(file.stat().st_size for file in shipped)
        config = model.path / "config.json"
        assert config.read_bytes()[:12] == b"CLOISTER-S1\n"
        old = config.read_bytes()
        files.write_bytes(config, b"{}")
        with pytest.raises(ModelRejected):
            registry.intact(home, "demo")
        config.write_bytes(old)  # an older version of the same file opens: its hash tells which it is
        registry.intact(home, "demo")
        config.write_bytes((model.path / "tokenizer.json").read_bytes())
        with pytest.raises(SealBroken):
            registry.intact(home, "demo")


@pytest.mark.parametrize("engine", ["native", "in-process"])
def test_a_sealed_gguf_is_served_from_memory(tmp_path: Path, engine: str) -> None:
    if engine == "native" and native_binary() is None:
        pytest.skip("no llama-server was built")
    home, master = sealed_home(tmp_path / "home")
    path = home.models / "m" / "m.gguf"
    path.parent.mkdir()
    with unlocked(home, master):
        with files.replacing(path) as draft:
            reading.copy_plain(support.gguf(), draft)
        sha256 = files.sha256_file(support.gguf())
        model = Model(name="m", kind="gguf", path=path, sha256=sha256, size=reading.size_of(path))
        with LlamaFile(path, vocab_only=True) as file:
            assert file.n_vocab > 0
        held = CheckedFile(model)
    memory = held.path
    try:
        assert str(memory.readlink()).startswith("/memfd:")
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(os.open(memory, os.O_RDWR), b"x", 0)
        assert read_header(memory).task is not None

        async def ask() -> str:
            running = pick_engine(
                engine, memory, folder=home.jobs / "0001" / "engine", context=512, slots=1, threads=1
            )
            await running.start()
            try:
                prompt = await running.tokenize("I want to cancel", False)
                pieces = [p.text async for p in running.generate(prompt, Settings(max_tokens=4), owner="me")]
                return "".join(pieces)
            finally:
                await running.stop()

        said = asyncio.run(ask()) if engine == "in-process" else None
        if engine == "native":
            with unlocked(home, master):
                said = asyncio.run(ask())
            left = [file.name for file in (home.jobs / "0001" / "engine").rglob("*")]
            assert left == ["llama-server.log"]  # its socket and saved slots lie in memory
        assert said
    finally:
        held.close()


def test_the_keys_of_the_site_are_sealed_and_reach_their_readers(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with unlocked(home, master):
        made = make_site_key(home, "me", "Anna", "site")
        signer = site_key(home)
        assert signer is not None and identity(home).key == made.key
        with closing(RequestLog(home)) as log, asyncio.Runner() as runner:
            runner.run(_asked(log, CANARY))
        assert len(find_prompt(home, CANARY)) == 1
        with ExitStack() as held:
            job = Job(id="0001", kind="serve", folder=home.jobs / "0001", home=home)
            tls = serving._tls({}, job, "10.1.2.3", held)
            assert tls is not None and str(Path(tls.key).readlink()).startswith("/memfd:")
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key)
            assert Path(str(tls.ca)).read_bytes().startswith(b"-----BEGIN CERTIFICATE")
        assert not Path(tls.key).exists()
    names = ("keys/identity.json", "keys/requests.key", "tls/ca.key", "tls/server.key")
    assert [name for name in names if not (home.path / name).read_bytes().startswith(MAGIC)] == []
    for read in (
        lambda: site_key(home),
        lambda: identity(home),
        lambda: find_prompt(home, CANARY),
        lambda: serving._tls({}, job, "10.1.2.3", held),
        lambda: make_site_key(home, "me", "Anna", "site"),
    ):
        with pytest.raises(Locked):
            read()


async def _asked(log: RequestLog, prompt: str) -> None:
    await log.asked("key", "m", prompt)[1]


def test_a_stolen_database_links_no_prompt(tmp_path: Path) -> None:
    """What the day's row holds is not enough to try prompts with."""
    home, master = sealed_home(tmp_path / "home")
    with unlocked(home, master), closing(RequestLog(home)) as log, asyncio.Runner() as runner:
        runner.run(_asked(log, CANARY))
    with looking(home) as link:
        (day,) = link.execute("SELECT key FROM request_days").fetchone()
        (kept,) = link.execute("SELECT prompt FROM request_log").fetchone()
    assert kept and prompt_mac(day, CANARY) != kept


def test_a_job_of_a_locked_site_is_not_started_and_one_that_was_says_so(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with pytest.raises(Locked):
        jobs.start(home, "import", {}, title="t", who="me")
    assert jobs.jobs(home) == []
    with unlocked(home, master):
        (home.jobs / "0001").mkdir()
        files.write_json(home.jobs / "0001" / "spec.json", {"kind": "import", "who": "me", "spec": {}})
    done = subprocess.run(
        [sys.executable, "-m", "appliance.ops.worker", str(home.jobs / "0001")],
        env={**os.environ, "CLOISTER_HOME": str(home.path)},
        check=False,
    )
    assert done.returncode == Locked.exit_code
    assert jobs._events(home.jobs / "0001" / "events.jsonl")[-1]["code"] == "locked"


def test_a_job_of_an_unlocked_site_runs_in_its_own_process(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        job = jobs.start(home, "import", {"demo": True, "name": "inbox", "patients": 60}, title="t", who="me")
        ended = jobs.wait(home, job, timeout=60)
        assert ended.state == "done", ended.end
        assert store.read(store.get(home, "inbox"), "test")
    kept = [file for file in home.jobs.rglob("*") if file.is_file() and file.read_bytes()[:8] != b"CLOISTER"]
    assert {file.name for file in kept} == {"events.jsonl", "log.txt"}
    assert (home.jobs / job / "log.txt").read_text() == ""  # as where its jail closed what holds its keys


JAILED = """
import sys
from pathlib import Path
from appliance.core import sealing
from appliance.core.errors import Busy, JailRefused
from appliance.core.home import open_home
from appliance.security.airgap.entering import enter_first
from appliance.security.vault import box, mounted

home = open_home(Path(sys.argv[1]))
kept = mounted.keep(home.path)
try:
    enter_first(home, "import", {}, keep=kept if sys.argv[2] == "kept" else ())
except JailRefused:
    sys.exit(77)
try:
    box.hold(home.path, shared=False)
    held = False
except Busy:
    held = True
print(held, bool(sealing.inherited()))
"""


@pytest.mark.parametrize("how", ["kept", "closed"])
def test_a_jailed_job_keeps_its_keys_for_its_children_and_the_keys_as_they_are(
    tmp_path: Path, how: str
) -> None:
    home, master = sealed_home(tmp_path / "home")
    with agent(home, master):
        done = subprocess.run(
            [sys.executable, "-c", JAILED, str(home.path), how], capture_output=True, text=True, check=False
        )
    if done.returncode == 77:
        pytest.skip("this machine has no jail")
    assert done.stdout == ("True True\n" if how == "kept" else "False False\n"), done.stderr


def test_a_torn_index_of_documents_is_refused(tmp_path: Path) -> None:
    home, master = sealed_home(tmp_path / "home")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.txt").write_text("Staff have 30 days of leave a year.")
    with unlocked(home, master):
        update(home, "policies", tmp_path / "d", job="1", who="me")
        path = home.documents / "policies" / "index.db"
        content = bytearray(path.read_bytes())
        content[5000] ^= 1
        path.write_bytes(content)
        with pytest.raises(SealBroken), index.looking(path):
            pass


def test_no_memory_folder_is_left_by_killed_processes(tmp_path: Path) -> None:
    from appliance.security.vault import opened

    code = (
        "import os; from appliance.security.vault import opened\n"
        "folder = opened.scratch(); (folder / 'plain').write_text('x'); print(folder, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = Path(said.stdout.strip())
    assert left.exists()
    opened.sweep()
    assert not left.exists()
    mine = opened.scratch()
    opened.sweep()
    assert mine.exists()
    assert opened.is_memory(mine)
    assert not opened.is_memory(Path("/proc"))
    with nullcontext():
        assert (mine.stat().st_mode & 0o777) == 0o700
