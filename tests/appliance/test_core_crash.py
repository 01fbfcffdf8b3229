"""What goes wrong is said without the words of a value: traces, threads, warnings, log lines, cores."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.core import crash
from appliance.core.errors import DataRejected
from appliance.core.phi import Phi
from appliance.data import readers
from appliance.data.columns import Columns

ROOT = Path(__file__).resolve().parents[2]
SECRET = "Zoltan Quux"

BREAK = f"""
import asyncio, gc, logging, sys, threading, warnings
from appliance.core import crash
from appliance.core.errors import DataRejected
{{change}}
crash.say_no_words()
secret = "{SECRET}"

class Lost:
    def __del__(self):
        raise ValueError(secret)

async def forgotten():
    async def fails():
        raise LookupError(secret)
    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    del task
    gc.collect()

warnings.warn("about " + secret)
logging.getLogger("others.thing").warning("about %s", secret)
try:
    int(secret)
except ValueError:
    logging.getLogger("others.thing").exception("about " + secret)
    logging.getLogger("appliance.serve").exception("our own words")
thread = threading.Thread(target=lambda: {{{{}}}}[secret])
thread.start()
thread.join()
asyncio.run(forgotten())
Lost()
try:
    try:
        {{{{}}}}[secret]
    except KeyError as problem:
        raise DataRejected("line 7 cannot be read") from problem
except DataRejected:
    raise ExceptionGroup(secret, [OSError(28, secret, secret), ValueError(secret)])
"""


def said(change: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", BREAK.format(change=change)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stdout + done.stderr


def test_no_word_of_a_value_is_said_and_every_place_is() -> None:
    told = said()
    assert SECRET not in told, told
    for there in ("KeyError", "LookupError", "ValueError", "UserWarning", "others.thing", "our own words"):
        assert there in told, there
    assert "DataRejected: line 7 cannot be read" in told and "led to" in told
    assert "ExceptionGroup" in told and "OSError: No space left on device" in told
    assert told.count("Traceback") >= 8 and 'File "<string>"' in told


@pytest.mark.parametrize(
    ("taken", "how_often"),
    [
        ("crash.say_no_words = lambda: None", 10),
        ("crash.trace = lambda problem: ''.join(__import__('traceback').format_exception(problem))", 8),
        ("crash._record = crash._plain", 3),
        ("crash._warned = warnings.showwarning", 1),
    ],
)
def test_without_it_they_are_said(taken: str, how_often: int) -> None:
    assert said(taken).count(SECRET) >= how_often


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, two = ValueError(SECRET), KeyError(SECRET)
    one.__cause__, two.__cause__ = two, one
    assert crash.trace(one).count("led to") == 1
    assert crash.kind(DataRejected("ours")) == "DataRejected: ours"


CRASH = "import os, resource; {what}; print(resource.getrlimit(resource.RLIMIT_CORE), flush=True); os.abort()"


@pytest.mark.parametrize("what", ["from appliance.core.crash import no_core; no_core()", "pass"])
def test_a_crash_leaves_no_core(tmp_path: Path, what: str) -> None:
    """The control shows that this machine would leave one, where it can."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    done = subprocess.run(
        [sys.executable, "-c", CRASH.format(what=what)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (most, most)),
    )
    assert done.returncode == -signal.SIGABRT
    plain_file = Path("/proc/sys/kernel/core_pattern").read_text().strip() in ("core", "core.%p")
    if what != "pass":
        assert done.stdout.strip() == ("(1, 1)" if most else "(0, 0)")
        assert list(tmp_path.glob("core*")) == []
    elif most and plain_file:
        assert list(tmp_path.glob("core*")) != []


def test_every_process_of_the_product_says_no_words() -> None:
    for path in ("ops/worker.py", "train/ranks.py", "../quantize/worker.py", "../tui/launch.py"):
        main = (ROOT / "appliance" / path).read_text()
        assert "say_no_words()" in main, path


def test_record_text_is_not_written_out() -> None:
    held = Phi(SECRET)
    for written in (repr(held), str(held), f"{held}", f"{held!r:>40}", f"{held} {held!r}", str([held])):
        assert SECRET not in written and "11 characters" in written
    assert SECRET not in str(KeyError(held)) + repr({"text": held}) + f"{held:>9}"
    assert held == Phi(SECRET) and held != SECRET and len({held, Phi(SECRET)}) == 1
    assert held.plain == SECRET and not Phi("") and repr(Phi([SECRET])) == "<not shown>"
    uses: list[Callable[[Any], object]] = ["".join, lambda each: each + "x", lambda each: each[0]]
    for use in (*uses, json.dumps, pickle.dumps, len):
        with pytest.raises(TypeError):
            use(held)


# Where record text, prompts and answers are held while code works on them.
HOLDS_TEXT = {
    "data.records.Record": ("text", "answer", "rejected", "unit", "group", "facts"),
    "models.encoding.Encoded": ("prompt", "answer"),
    "serve.cache.Answer": ("text", "extra"),
    "serve.client.Reply": ("text", "label"),
    "serve.documents.chunks.Chunk": ("heading", "text"),
    "serve.documents.passages.Opened": ("before", "after"),
    "serve.documents.passages.Passage": ("heading", "text"),
    "serve.documents.texts.Block": ("text",),
    "serve.documents.texts.Page": ("text", "headings"),
    "serve.embeddings.EmbedAsk": ("texts",),
    "serve.engine.Piece": ("text",),
    "serve.feedback.Said": ("correction",),
    "serve.near.Question": ("frame", "text"),
    "serve.places.Wanted": ("prompt",),
    "serve.requests.Ask": ("messages", "prompt"),
    "serve.review.Words": ("messages", "text", "passages", "correction"),
    "serve.tools.Call": ("arguments",),
}


@pytest.mark.parametrize("name", HOLDS_TEXT)
def test_what_holds_record_text_does_not_show_it(name: str) -> None:
    module, _, kind = name.rpartition(".")
    found = getattr(importlib.import_module(f"appliance.{module}"), kind)
    held = {field.name: SECRET for field in dataclasses.fields(found)}
    shown = repr(found(**held))
    hidden = {field.name for field in dataclasses.fields(found) if not field.repr}
    assert hidden >= set(HOLDS_TEXT[name])
    assert all(f"{field}=" not in shown for field in HOLDS_TEXT[name])


def test_a_row_of_a_file_shows_nothing(tmp_path: Path) -> None:
    for name, content in (("a.csv", f"text\n{SECRET}\n"), ("a.jsonl", f'{{"text": "{SECRET}"}}\n')):
        (tmp_path / name).write_text(content)
        rows = readers._rows(tmp_path / name, name, Columns(task="text", text="text"))
        (_, row, _) = next(iter(rows))
        assert SECRET not in repr(row) and row["text"].plain == SECRET
