"""The profile `edge`: what serving needs and nothing more, small on disk; no torch, no pip, no tests.

Written for any Python 3, like install.py, which calls it.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from steps import LOG, CannotInstall

# What the endpoint, its command line and its screens load. Imported once: it proves the installation,
# and Python keeps the compiled form of these modules only, not of every module there is.
WARMED = (
    "appliance.ops.worker",
    "appliance.security.supply.baseline",
    "appliance.security.supply.seal",
    "appliance.serve.batching",
    "appliance.serve.job",
    "quantize.foreign",
    "tui.app",
    "tui.cli",
    "tui.endpoint",
    "tui.launch",
    "tui.session",
    "tui.session_supply",
)
DROPPED = ("numpy/**/tests", "numpy/f2py", "numpy/distutils", "numpy/_core/include", "llama_cpp/include")
UNUSED = ("numpy/**/*.a", "numpy/**/*.pyi", "numpy/_core/_simd.*.so", "numpy/_core/_*_tests.*.so")


def packages(venv):
    """The site-packages folder of `venv`."""
    return next((venv / "lib").glob("python3*/site-packages"))


def share_copies(folder):
    """Make equal files of `folder` one file with several names; returns the bytes that this freed.

    A wheel holds no links, so each library of llama.cpp arrives under three names as three files.
    """
    first, freed = {}, 0
    for file in sorted(folder.glob("*.so*")):
        same = first.setdefault((file.stat().st_size, sha256(file)), file)
        if same is file or same.samefile(file):
            continue
        draft = file.with_name(file.name + ".draft")
        try:
            os.link(same, draft)
        except OSError:  # no hard links here: it stays large
            return freed
        freed += file.stat().st_size
        draft.replace(file)
    return freed


def slim(venv):
    """Drop what is never loaded: tests, tools to build extensions, headers, static libraries, stubs."""
    place = packages(venv)
    for pattern in DROPPED:
        for folder in list(place.glob(pattern)):
            shutil.rmtree(folder, ignore_errors=True)
    for pattern in UNUSED:
        for file in list(place.glob(pattern)):
            file.unlink()


def warm(venv):
    """Import what is used, so that it is compiled; the exit code and what was said, if it failed.

    Isolated (-I): neither the folder that we stand in nor PYTHONPATH may lend it a module.
    """
    code = "import {}, llama_cpp".format(", ".join(WARMED))
    python = str(venv / "bin" / "python")
    done = subprocess.run([python, "-I", "-W", "ignore", "-c", code], capture_output=True, text=True)
    return done.returncode, done.stderr


def finish(venv, tools):
    """Compile what is used and seal it all; nothing that was compiled before stays."""
    for folder in list(packages(venv).rglob("__pycache__")):
        shutil.rmtree(folder)
    code, said = warm(venv)
    if code:
        raise CannotInstall(f"The installation does not load:\n{said}", f"See {tools / LOG}.")
    seal(venv)


def seal(venv):
    """Have the installation write the hashes of its compiled files down, and check all others."""
    words = [str(venv / "bin" / "python"), "-I", "-B", "-m", "appliance.security.supply.seal"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise CannotInstall(
            f"The installation cannot be sealed: {done.stderr.strip()}",
            f"Remove {venv} and install again.",
        )


@contextmanager
def outside_the_source():
    """Environment that makes setuptools build elsewhere: a stale build folder would be installed too."""
    with tempfile.TemporaryDirectory(prefix="cloister-build-") as folder:
        extra = Path(folder) / "extra.cfg"
        extra.write_text(f"[build]\nbuild_base = {folder}/build\n[egg_info]\negg_base = {folder}\n")
        yield {"DIST_EXTRA_CONFIG": str(extra)}


def sha256(file):
    """The hex digest of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
