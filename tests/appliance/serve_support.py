"""What the tests of serving share: a real GGUF file, a home that has it, running endpoints."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

import appliance.models
from appliance.core.db import transaction
from appliance.core.files import sha256_file
from appliance.core.home import Home, open_home
from appliance.models import registry
from appliance.models.registry import Model
from appliance.models.task import PROMPT, Task
from appliance.ops import jobs
from appliance.security import audit, keys
from quantize.convert import convert
from quantize.source import open_checkpoint

BASE = Path(appliance.models.__file__).parent / "base"
# One label starts another, and some share their first token.
LABELS = ("cancel", "cancel reservation", "calendar update", "repeat", "time", "other", "thank you")
TASK = Task(kind="label", prompt=PROMPT, labels=LABELS)
TEXTS = (
    "I want to cancel my appointment on friday",
    "my knee hurts since tuesday",
    "please send the invoice again",
    "what is the time",
    "can you move my booking to monday morning?",
    "fever and cough, and I feel weak since the weekend",
    "where is the clinic",
    "thanks!",
)
NAME = "inbox-f16"
# With these the base writes on for all 400 tokens, about half a second.
ENDLESS = {"temperature": 2.0, "seed": 0, "max_tokens": 400}


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="cloister-tests-")


@cache
def gguf(labels: bool = True) -> Path:
    """The shipped base as F16 GGUF, as a label model or a plain one; made once."""
    path = Path(_folder().name) / f"{'label' if labels else 'plain'}.gguf"
    facts = {"cloister.task": json.dumps(TASK.as_dict())} if labels else {}
    convert(open_checkpoint(BASE), path, "F16", name="inbox", facts=facts)
    return path


@cache
def embedding_gguf() -> Path:
    """The plain file, which says that it gives vectors: the mean of its states."""
    path, reader = Path(_folder().name) / "embedding.gguf", GGUFReader(gguf(False))
    pooling = MetadataDetails(GGUFValueType.UINT32, 1)
    copy_with_new_metadata(reader, GGUFWriter(path, "llama"), {"llama.pooling_type": pooling}, [])
    return path


TOOLS_TEMPLATE = (
    "{% if tools %}<|system|> <tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools></s>"
    "{% endif %}"
)


@cache
def tools_gguf() -> Path:
    """The shipped base with a chat template that shows tools, in the way of Hermes."""
    folder = Path(_folder().name)
    shutil.copytree(BASE, folder / "base")
    template = folder / "base" / "chat_template.jinja"
    template.write_text(TOOLS_TEMPLATE + template.read_text())
    convert(open_checkpoint(folder / "base"), folder / "tools.gguf", "F16", name="tools")
    return folder / "tools.gguf"


def add_model(home: Home, name: str, path: Path, **more: Any) -> None:
    """Enter a GGUF file that has passed the gate."""
    facts = {"kind": "gguf", "facts": {}} | more
    registry.add(
        home,
        Model(name=name, path=path, sha256=sha256_file(path), size=path.stat().st_size, **facts),
        who="tests",
    )
    add_report(home, name)


@cache
def adapters() -> tuple[Path, Path]:
    """Two LoRA files for that base, each with effects of its own; made once."""
    weights = {tensor.name: tensor.shape for tensor in GGUFReader(gguf()).tensors}
    paths = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        path = Path(_folder().name) / f"adapter-{seed}.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 8.0)
        for name, (wide, high) in (pair for pair in weights.items() if "attn_v" in pair[0]):
            writer.add_tensor(f"{name}.lora_a", random.normal(0, 0.2, (8, int(wide))).astype(np.float32))
            writer.add_tensor(f"{name}.lora_b", random.normal(0, 0.2, (int(high), 8)).astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths[0], paths[1]


def new_home(folder: Path, *, labels: bool = True, passed: bool = True) -> Home:
    """A home where NAME is registered, with a report that passes it or not."""
    home = open_home(folder)
    path = gguf(labels)
    model = Model(
        name=NAME, kind="gguf", path=path, sha256=sha256_file(path), size=path.stat().st_size, facts={}
    )
    registry.add(home, model, who="tests")
    add_report(home, NAME, passed=passed)
    return home


def add_report(home: Home, name: str, *, job: str = "", path: str = "", **told: bool) -> None:
    """A report of a model, as an evaluation enters it: passed, and on the whole test split, unless told."""
    told = {"passed": True, "partial": False, **told}
    with transaction(home) as link:
        link.execute(
            "INSERT INTO reports (model, dataset, created, job, passed, path, partial)"
            " VALUES (?, 'd@1', ?, ?, ?, ?, ?)",
            (name, job, job, int(told["passed"]), path, int(told["partial"])),
        )
        audit.record(link, who="tests", what="model.evaluate", target=name, job=job, **told)


@contextmanager
def endpoint(home: Home, **spec: Any) -> Iterator[tuple[jobs.JobView, str, str]]:
    """A running serve job: the job, its base address, a key for it."""
    _, key = keys.new_key(home, "tests", "tests")
    job_id = jobs.start(home, "serve", {"model": NAME, "port": 0, **spec}, title="serve", who="tests")
    try:
        url = ready(home, job_id)["url"]
        yield jobs.view(home, job_id), url, key
    finally:
        if jobs.view(home, job_id).state == "running":
            jobs.stop(home, job_id, who="tests")


def ready(home: Home, job_id: str, timeout: float = 30.0) -> dict[str, Any]:
    """The "ready" event of a job."""
    limit = time.monotonic() + timeout
    while time.monotonic() < limit:
        view = jobs.view(home, job_id)
        for event in view.events:
            if event["event"] == "ready":
                return event
        assert view.state in ("waiting", "running"), (view.events, (view.folder / "log.txt").read_text())
        time.sleep(0.02)
    raise AssertionError("not ready in time")


def processes(job: jobs.JobView) -> tuple[psutil.Process, psutil.Process]:
    """The process of a serve job, and its llama-server."""
    process = gateway(job)
    (server,) = process.children()
    return process, server


def gateway(job: jobs.JobView) -> psutil.Process:
    """The process of a serve job."""
    for process in psutil.process_iter(["cmdline"]):
        if str(job.folder) in (process.info["cmdline"] or []):
            return process
    raise AssertionError("the job is not running")


def ended(process: psutil.Process) -> bool:
    """Whether it is gone, or only its exit status is left."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(true: Any, timeout: float = 60.0) -> None:
    """Wait until `true()` holds."""
    limit = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)
