"""cloister serve, chat, job stop: what is refused before there is a job, pipes, several jobs at once."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import app_site as a
import pytest

from appliance.core.files import sha256_file
from appliance.core.home import Home
from appliance.core.parent import die_with_parent
from appliance.core.processes import began
from appliance.models import registry
from appliance.models.registry import Model
from appliance.serve import route_changes
from appliance.serve.asked import check_serving
from tui.cli import serve
from tui.cli.entry import run
from tui.session import Session

FLAGS = {
    "no such model": (["nothing"], 3, "no model named nothing"),
    "gate": (["file"], 6, "no gate it could pass"),
    "cache": (["file", "--ungated", "--cache", "all"], 2, "no cache called all"),
    "engine": (["file", "--ungated", "--engine", "ollama"], 2, "no engine called ollama"),
    "embedder": (["file", "--ungated", "--embed", "nothing"], 3, "no model named nothing"),
    "no embedder": (["file", "--ungated", "--embed", "base"], 2, "not a GGUF"),
    "host": (["file", "--ungated", "--host", "example.org"], 2, "not an address"),
    "address": (["file", "--ungated", "--host", "240.0.0.1"], 2, "no address 240.0.0.1."),
    "certificate": (["file", "--ungated", "--tls-cert", "/no", "--tls-key", "/no"], 2, "/no cannot be used"),
    "gone": (["gone", "--ungated"], 3, "cannot be read"),
}


@pytest.fixture
def site(home: Home, tmp_path: Path) -> Home:
    """A base and two files of it, one of which is gone from the disk."""
    path = tmp_path / "file.gguf"
    path.write_bytes(b"GGUF")
    registry.add(home, Model(name="base", kind="base", path=tmp_path, sha256="0", size=1), who="t")
    file = Model(
        name="file", kind="gguf", path=path, sha256=sha256_file(path), size=4, parent="base", facts={}
    )
    registry.add(home, file, who="t")
    gone = Model(name="gone", kind="gguf", path=tmp_path / "gone", sha256="1", size=4, parent="base")
    registry.add(home, gone, who="t")
    return home


@pytest.mark.parametrize("what", FLAGS)
def test_what_can_be_known_before_is_refused_without_a_job(
    site: Home, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    words, code, said = FLAGS[what]
    assert run(["serve", *words]) == code
    assert said in capsys.readouterr().err
    assert Session(site.path).jobs() == []


def test_an_address_of_another_machine_is_answered_with_our_own(
    site: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "file", "--ungated", "--host", "240.0.0.1"]) == 2
    said = capsys.readouterr().err
    assert "Its own are " in said and "127.0.0.1" in said and "--host 0.0.0.0" in said and "::1" not in said


def test_so_is_a_port_that_is_taken(site: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "file", "--ungated", "--port", str(port)]) == 9
    said = capsys.readouterr().err
    assert f"Port {port}" in said and "use --port" in said
    assert Session(site.path).jobs() == []


def test_what_may_be_served_passes_and_leaves_the_port_free(site: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    spec = {"models": ["file"], "ungated": True, "port": port}
    check_serving(site, spec)
    check_serving(site, spec)
    route_changes.make_split(site, "both", a="file", b="gone", share=0.5, difference=0.1, who="t")
    (site.path.parent / "gone").write_bytes(b"GGUF")
    check_serving(site, {**spec, "models": ["both"]})  # a route is served as its two models


class Typed(io.StringIO):
    """A terminal at which somebody has typed all this."""

    def isatty(self) -> bool:
        return True


def test_every_line_of_a_pipe_is_asked_without_a_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\n  \ntwo \nthree"))
    assert list(serve._lines()) == ["one", "two", "three"] and capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "stdin", Typed("one\n\ntwo\n"))
    assert list(serve._lines()) == ["one"] and capsys.readouterr().out == ""  # stdout is a file here
    monkeypatch.setattr(sys, "stdin", Typed("one\n\ntwo\n"))
    monkeypatch.setattr(sys, "stdout", shown := Typed())
    assert list(serve._lines()) == ["one"] and shown.getvalue() == "> > "


def test_several_jobs_are_stopped_at_once(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            preexec_fn=lambda: die_with_parent(os.getppid()),
        )
        for _ in range(3)
    ]
    folders = []
    for child in children:
        started = began(child.pid)
        folders.append(a.job(home, "train", "train", process=(child.pid, started)))
        a.tell(folders[-1], "started", kind="train")
    assert run(["job", "stop", "1", "9"]) == 3  # none, for one is unknown
    assert all(child.poll() is None for child in children)
    capsys.readouterr()
    assert run(["job", "stop", "1", "0002", "0001", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in told["jobs"]] == ["0001", "0002"] and told["id"] == "0001"
    assert [child.wait(60) for child in children[:2]] == [-15, -15]
    assert run(["job", "stop", "1", "3"]) == 2  # the first runs no more; the other is stopped all the same
    assert "0001 is not running" in capsys.readouterr().err
    assert children[2].wait(60) == -15


def test_the_printed_python_can_be_pasted_as_it_is() -> None:
    """In plain http and with a certificate: no indent, which an interpreter refuses."""
    for ca in (None, "/tls/ca.pem"):
        text = serve.snippet("http://127.0.0.1:8080", "m", ca)
        compile(text[text.index("import os") :], "pasted", "exec")


def test_a_route_is_what_the_snippets_ask_for(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(self: Session, spec: dict[str, Any]) -> str:
        folder = a.job(home, "serve", "serve desk", process=a.me())
        a.tell(folder, "started", kind="serve")
        told = {"url": "http://127.0.0.1:8080", "model": "small", "models": ["small", "large"]}
        a.tell(
            folder,
            "ready",
            **told,
            engine="native",
            routes=[name for name in spec["models"] if name == "desk"],
        )
        return folder.name

    monkeypatch.setattr(Session, "start_serving", start)
    for models, asked in ((["desk"], "desk"), (["small", "large"], "small")):
        assert run(["serve", *models, "--detach"]) == 0
        said = capsys.readouterr().out
        assert f'"model": "{asked}"' in said and f'model="{asked}"' in said
        assert ("Ask for the route desk" in said) == (asked == "desk") and "large is served" in said


@pytest.mark.parametrize("asked", ["", "  "])
def test_an_empty_question_is_not_asked(capsys: pytest.CaptureFixture[str], asked: str) -> None:
    assert run(["chat", "nothing", "--ask", asked]) == 2
    assert "Nothing to ask" in capsys.readouterr().err
