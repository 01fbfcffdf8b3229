"""Parts of llama.cpp's source, as it stands in the source distribution of the installed llama-cpp-python."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path


@contextmanager
def llama_source(parts: Sequence[str]) -> Iterator[Path]:
    """The folder of llama.cpp with what begins with one of `parts`, fetched with pip, gone afterwards.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be fetched here.
    """
    with tempfile.TemporaryDirectory(prefix="cloister-") as made:
        wanted = f"llama-cpp-python=={version('llama-cpp-python')}"
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, wanted, "-d", made], check=True, capture_output=True, timeout=600)
        (archive,) = Path(made).glob("*.tar.gz")
        with tarfile.open(archive) as content:
            members = [
                member
                for member in content
                if any(f"/vendor/llama.cpp/{part}" in member.name for part in parts)
            ]
            content.extractall(made, members, filter="data")
        yield next(Path(made).glob("*/vendor/llama.cpp"))
