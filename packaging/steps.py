"""The steps that every way of installing has: checks, a fresh environment, pip with a log.

Written for any Python 3, like install.py.
"""

import os
import platform
import shutil
import subprocess
import sys
import time

LOG = "install.log"


class CannotInstall(Exception):
    """What is missing, and what to do."""


def check_python():
    """The versions all dependencies have wheels for."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise CannotInstall(
            f"Cloister needs Python 3.11 to 3.13; this is {platform.python_version()}.",
            "Install python3.11 and run: make install PYTHON=python3.11",
        )


def check_room(folder, size):
    """Free disk for what comes next."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < size:
        raise CannotInstall(
            f"{there} has {free / 1e9:.1f} GB free; the installation needs {size / 1e9:.1f} GB.",
            "Free some space, or install elsewhere: make install VENV=DIR",
        )


def make_venv(venv, *options):
    """A fresh virtual environment."""
    say(f"making {venv}")
    argv = [sys.executable, "-m", "venv", *options, str(venv)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        raise CannotInstall(
            f"This Python cannot make a virtual environment in {venv}.",
            "On Debian or Ubuntu: apt-get install python3-venv",
        )


def pip(venv, *words, **environment):
    """Run the venv's pip; keep its output for when it fails."""
    log = venv / LOG
    with log.open("ab") as stream:
        child = subprocess.Popen(
            [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *words],
            stdout=stream,
            stderr=stream,
            env=dict(os.environ, **environment),
        )
        code = wait(child, 1 if sys.stdout.isatty() else 30)
    if code:
        tail = log.read_text(errors="replace").splitlines()[-15:]
        raise CannotInstall("\n".join(["pip failed:", *tail]), f"See {log}, then run this again; it goes on.")


def wait(child, every):
    """Wait for a child and say every few seconds that it goes on; on a terminal in one line."""
    live, began = sys.stdout.isatty(), time.monotonic()
    try:
        while True:
            try:
                code = child.wait(every)
                break
            except subprocess.TimeoutExpired:
                passed = int(time.monotonic() - began)
                text = f"install: ... {passed // 60}:{passed % 60:02d}"
                print(f"\r{text}" if live else text, end="" if live else "\n", flush=True)
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        if live:
            print("\r\x1b[K", end="", flush=True)
    return code


def say(text):
    """One line of progress."""
    print(f"install: {text}", flush=True)
