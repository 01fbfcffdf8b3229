"""A sealed site at work on records that are all canaries: `python canary_site.py FOLDER COUNT [FAULT]`.

Every command is the product's own, in processes of their own; HOME, TMPDIR and the working directory are
below FOLDER. Prints what the commands said as one JSON object. With FAULT (see faults/sitecustomize.py) only
what comes up to the first import is done, without that control. Run it in a session of its own: it signs in.
"""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from leak_support import canary

ROOT = Path(__file__).resolve().parents[2]
QUEUES = ("billing", "refill", "visit")
PATIENCE = 180.0  # seconds


class Site:
    """The commands of one person at one home."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.env = {
            key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "CLOISTER"))
        }
        for name, below in (("HOME", "person"), ("TMPDIR", "tmp"), ("CLOISTER_HOME", "home")):
            (folder / below).mkdir(exist_ok=True)
            self.env[name] = str(folder / below)
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        (folder / "work").mkdir(exist_ok=True)
        (folder / "sources").mkdir(exist_ok=True)
        self.env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent / "faults"), str(ROOT)])

    def run(self, *words: str, fault: str = "", fails: bool = False) -> dict[str, Any]:
        """What a command says; it must end well unless it `fails`."""
        done = subprocess.run(
            [sys.executable, "-m", "tui.launch", *words, "--json"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=self.folder / "work",
            env=self.env | ({"CANARY_FAULT": fault} if fault else {}),
        )
        assert (done.returncode != 0) == fails, (words, done.stdout, done.stderr[-2000:])
        found: dict[str, Any] = json.loads(done.stdout or "{}")
        return found | {"exit": done.returncode, "stderr": done.stderr}

    def at_terminal(self, words: list[str], typed: str) -> str:
        """What a command shows on a terminal at which `typed` is typed, then ctrl-D twice."""
        mine, theirs = pty.openpty()
        command = [sys.executable, "-m", "tui.launch", *words]
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=self.env, cwd=self.folder / "work"
        ) as child:
            os.close(theirs)
            os.write(mine, typed.encode() + b"\n\x04\x04")
            shown = bytearray()
            while True:
                try:
                    part = os.read(mine, 4096)
                except OSError:  # the terminal's other end is closed
                    break
                shown += part
        os.close(mine)
        assert child.returncode == 0, shown
        return shown.decode(errors="replace")

    def kill(self, job: str, stage: str) -> None:
        """SIGKILL the process of a job when it has come to `stage`."""
        events, limit = self.home / "jobs" / job / "events.jsonl", time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            if events.exists() and f'"stage": "{stage}"' in events.read_text():
                break
            time.sleep(0.02)
        process = self.process(job)
        process.kill()
        process.wait(PATIENCE)

    def end(self) -> None:
        """End every process that works on a job of this home, and what that has started."""
        for process in psutil.process_iter(["cmdline"]):
            if str(self.home / "jobs") in (process.info["cmdline"] or [""])[-1]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
                    process.wait(PATIENCE)

    def process(self, job: str) -> psutil.Process:
        """The process that works on a job."""
        folder = str(self.home / "jobs" / job)
        all_of_them = psutil.process_iter(["cmdline"])
        return next(each for each in all_of_them if (each.info["cmdline"] or [""])[-1] == folder)


def sentence(number: int) -> str:
    """A message in which the canary is a name."""
    return f"I am {canary(number)} and I ask about my {QUEUES[number % 3]} since week {number}"


def write_sources(site: Site, count: int) -> None:
    """The exports of a site as CSV and JSON lines, and documents."""
    sources = site.folder / "sources"
    with (sources / "inbox.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["patient", "message", "queue"])
        table.writerows([canary(n), sentence(n), QUEUES[n % 3]] for n in range(count))
    with (sources / "bare.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([canary(n), sentence(n), QUEUES[n % 3]] for n in range(9))
    with (sources / "asked.jsonl").open("w") as stream:
        for n in range(count):
            row = {"who": canary(n), "question": sentence(n), "answer": f"Dear {canary(n)}, come on day {n}."}
            stream.write(json.dumps(row) + "\n")
    (sources / "broken.jsonl").write_text(f'{{"who": "{canary(1)}", "question": "{sentence(1)}\n')
    (sources / "documents").mkdir()
    for n in range(2):  # what the model reads at once is short
        text = f"# {canary(n)}\n\n{canary(n)} comes on day {n}.\n"
        (sources / "documents" / f"{n}.md").write_text(text)
    (sources / "words").write_text("seven grey herons wade\n")
    (sources / "words").chmod(0o600)


def unlock(site: Site) -> None:
    site.run("unlock", "--as", "mira", "--passphrase-file", str(site.folder / "sources" / "words"))


def open_site(site: Site, count: int) -> None:
    """A sealed home, unlocked as after a start of the machine."""
    write_sources(site, count)
    words = f"mira={site.folder / 'sources' / 'words'}"
    made = site.run("init", "--single-person", "--seal", "--site", "Anna", "--passphrase-file", words)
    assert made["sealed"], made
    site.run("lock")
    unlock(site)


def import_words(site: Site, name: str = "inbox") -> tuple[str, ...]:
    columns = ("--text", "message", "--label", "queue", "--unit", "patient")
    return ("data", "import", str(site.folder / "sources" / "inbox.csv"), "--name", name, *columns)


def bring_in(site: Site) -> dict[str, Any]:
    """Imports that crash, are killed and go on, are refused, and end well."""
    sources, said = site.folder / "sources", {}
    said["crashed"] = site.run(*import_words(site), fault="crash", fails=True)
    said["killed"] = site.run(*import_words(site), fault="kill", fails=True)
    said["resumed"] = site.run("job", "resume", "2")
    bare = [str(sources / "bare.csv") if "inbox.csv" in word else word for word in import_words(site, "bare")]
    said["bare"] = site.run(*bare, fails=True)
    asked = ("--prompt", "question", "--answer", "answer", "--unit", "who")
    said["asked"] = site.run("data", "import", str(sources / "asked.jsonl"), "--name", "asked", *asked)
    broken = str(sources / "broken.jsonl")
    said["broken"] = site.run("data", "import", broken, "--name", "broken", *asked, fails=True)
    said["docs"] = site.run("docs", "add", str(sources / "documents"), "--collection", "visits")
    return said


def make_models(site: Site) -> dict[str, Any]:
    """Private training that is killed and goes on, an evaluation, a GGUF file, a bundle."""
    said = {"base": site.run("model", "import", "demo")}
    train = ("train", "asked", "--steps", "4", "--sample-rate", "0.2", "--name", "tuned", "--detach")
    said["train"] = site.run(*train)
    site.kill(said["train"]["job"], "train")
    said["trained"] = site.run("job", "resume", said["train"]["job"])
    said["quantize"] = site.run("quantize", "tuned", "--to", "Q8_0")
    said["evaluate"] = site.run("evaluate", "tuned", "--limit", "12")
    there = ("--home", str(site.folder / "edge"))
    words = site.run("trust", "init", "edge-1", "--role", "edge", *there)["words"]
    card = str(site.folder / "edge.card")
    site.run("trust", "card", "--to", card, *there)
    compared = ("--compared-by", "mira", "--compared-by", "joe")
    site.run("trust", "add", card, "--words", words, *compared)
    out = str(site.folder / "tuned.clb")
    said["bundle"] = site.run("bundle", "export", "tuned-q8_0", "--to", "edge-1", "--out", out)
    return said


def serve(site: Site) -> dict[str, Any]:
    """Questions with canaries, good and bad, to an endpoint whose engine dies on the way."""
    key = site.run("key", "new", "--for", "dms", "--collections", "visits")["key"]
    said = {"serve": site.run("serve", "tuned-q8_0", "--port", str(site.port), "--ungated", "--detach")}
    job = said["serve"]["job"]
    with httpx.Client(
        base_url=f"{said['serve']['url']}/v1", headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:

        def ask(**more: Any) -> httpx.Response:
            messages = [{"role": "user", "content": sentence(5)}]
            body = {"model": "tuned-q8_0", "messages": messages, "max_tokens": 8, **more}
            return client.post("/chat/completions", json=body)

        answers = [ask(), ask(stream=True), ask(collections=["visits"]), ask(messages=[{"role": canary(6)}])]
        answers += [ask(model=canary(7)), ask(**{canary(8): 1}), ask(stop=canary(9))]
        answers += [client.post("/chat/completions", content=sentence(9)), client.get(f"/{canary(9)}")]
        answers.append(client.post("/completions", json={"model": "tuned-q8_0", "prompt": sentence(3)}))
        rating = {
            "answer_id": answers[0].json()["cloister"]["answer_id"],
            "thumb": -1,
            "correction": f"Ask {canary(4)}.",
        }
        answers.append(client.post("/feedback", json=rating))
        engines = site.process(job).children(recursive=True)
        for engine in engines:
            engine.send_signal(signal.SIGSEGV)
        limit = time.monotonic() + PATIENCE
        while (after := ask(cache=None, seed=3)).status_code != 200 and time.monotonic() < limit:
            time.sleep(0.5)
        answers.append(after)
    said["answers"] = [answer.status_code for answer in answers]
    said["engines"] = len(engines)
    said["typed"] = len(site.at_terminal(["chat", "tuned-q8_0"], sentence(2)))
    said["feedback"] = site.run("feedback", "list")
    site.run("job", "stop", job)
    said["again"] = site.run("serve", "tuned-q8_0", "--port", str(site.port), "--ungated", "--detach")
    site.process(said["again"]["job"]).kill()
    return said


def main(folder: Path, count: int, fault: str) -> dict[str, Any]:
    site = Site(folder)
    open_site(site, count)
    try:
        if fault:
            return {"spoilt": site.run(*import_words(site), fault=fault, fails=True)}
        said = bring_in(site) | make_models(site) | serve(site)
        said["audit"] = site.run("audit", "verify")
        return said
    finally:
        site.end()
        site.run("lock")
        unlock(site)  # the next process to look clears away what killed ones left in memory
        site.run("data", "list")
        site.run("lock")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), " ".join(sys.argv[3:]))))
