"""The real command in a real terminal: tmux, keys, another size, and a line that drops."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from app_site import models

from appliance.core.home import Home
from appliance.ops import jobs
from tui.widgets.frame import SCREENS

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")

DEMO = {"demo": True, "name": "inbox", "patients": 20_000}


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """A terminal of tmux, with a server of its own: `kill` is a line that drops."""

    socket: Path
    home: Home

    def tmux(self, *words: str) -> str:
        """What tmux says."""
        whole = ("tmux", "-S", str(self.socket), "-f", "/dev/null", *words)
        return subprocess.run(whole, check=True, capture_output=True, text=True).stdout

    def open(self, *, term: str = "tmux-256color") -> None:
        """Start the command at 80x24."""
        told = f"TERM={term} COLUMNS=80 LINES=24"  # as shells leave them behind
        command = f"exec env {told} CLOISTER_HOME={self.home.path} {sys.executable} -m tui.launch"
        self.tmux("new-session", "-d", "-s", "one", "-x", "80", "-y", "24", command)

    def rows(self) -> list[str]:
        """What a person sees, row by row."""
        return self.tmux("capture-pane", "-p", "-t", "one").splitlines()

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names of them."""
        self.tmux("send-keys", "-t", "one", *keys)

    def until(self, words: str, patience: float = 60.0) -> str:
        """The screen once it shows `words`."""
        return seen(lambda: "\n".join(self.rows()), lambda text: words in text, words, patience)


def seen(look: Callable[[], str], right: Callable[[str], bool], what: str, patience: float = 60.0) -> str:
    """What `look` finds, once it is right."""
    limit = time.monotonic() + patience
    while not right(found := look()):
        assert time.monotonic() < limit, f"never {what}:\n{found}"
        time.sleep(0.1)
    return found


@pytest.fixture
def terminal(tmp_path: Path, home: Home) -> Iterator[Terminal]:
    one = Terminal(socket=tmp_path / "tmux", home=home)
    yield one
    subprocess.run(("tmux", "-S", str(one.socket), "kill-server"), check=False, capture_output=True)


def state(home: Home, job_id: str) -> str:
    return jobs.view(home, job_id).state


def test_a_job_started_on_screen_goes_on_when_the_line_drops(terminal: Terminal) -> None:
    home = terminal.home
    job_id = jobs.start(home, "import", DEMO, title="import inbox", who="mira")
    jobs.stop(home, job_id, who="mira")
    terminal.open()
    terminal.until("From data to answer")
    terminal.press("j")
    terminal.until("r Resume")
    terminal.until("0001  import inbox")
    terminal.press("r")  # it is a child of the screens now
    terminal.until("running")
    assert state(home, job_id) == "running"
    terminal.tmux("kill-server")
    assert jobs.wait(home, job_id, 120).state == "done"

    terminal.open()
    assert "0001 import inbox" in terminal.until("done")
    terminal.press("j")
    terminal.until("r Resume")
    terminal.until("0001  import inbox")
    terminal.press("Enter")
    assert "dataset inbox@1" in terminal.until("Home > 0001 import inbox")


def test_every_screen_at_three_sizes_and_on_a_poor_terminal(terminal: Terminal) -> None:
    models(terminal.home)
    terminal.open(term="linux")
    terminal.until("From data to answer")
    for width, height in ((80, 24), (70, 20), (200, 60)):
        terminal.tmux("resize-window", "-t", "one", "-x", str(width), "-y", str(height))
        for key, _, name in SCREENS:
            terminal.press(key)
            text = terminal.until(f"> {name}")
            assert text.isascii(), text
    place = Path(terminal.tmux("display", "-p", "-t", "one", "#{pane_tty}").strip())
    place.write_text("\033[2;2Hkernel: eth0 is down")  # as a console's kernel does
    assert "eth0 is down" in terminal.until("kernel:")
    terminal.press("C-l")
    seen(lambda: "\n".join(terminal.rows()), lambda text: "kernel:" not in text, "drawn again")
    terminal.press("1", "q")
    seen(lambda: "runs" if alive(terminal) else "", lambda text: not text, "ended")


def alive(terminal: Terminal) -> bool:
    words = ("tmux", "-S", str(terminal.socket), "has-session")
    return subprocess.run(words, check=False, capture_output=True).returncode == 0
