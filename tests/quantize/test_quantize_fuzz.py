"""No header may end or hang the parent; what we accept, llama.cpp must open or refuse in its child."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fuzz_changes import changed_gguf, changed_safetensors
from fuzz_encoders import KINDS, tiny_encoder
from fuzz_support import (
    open_all,
    open_safetensors,
    put_together,
    take_apart,
    tiny,
    tiny_adapter,
)
from quantize_support import make_model
from safetensors.numpy import save_file

from appliance.core.errors import EngineFailed, ModelRejected
from appliance.models.safetensors import read_header
from quantize import worker
from quantize.convert import convert
from quantize.foreign import check_adapter_gguf, check_gguf
from quantize.header import read_gguf
from quantize.source import open_checkpoint

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
TOKENIZERS = ("gpt2", "llama", "t5")
PATIENCE = 10.0  # seconds for one file
_SUFFIX = {".gguf": (open_all, read_gguf), ".safetensors": (open_safetensors, read_header)}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One file of each architecture and tokenizer, an adapter, one that our converter wrote, and encoders."""
    folder = tmp_path_factory.mktemp("seeds")
    files = [tiny(folder, arch, TOKENIZERS[i % 2]) for i, arch in enumerate(ARCHITECTURES)]
    files += [tiny(folder, "llama", "t5"), tiny(folder, "qwen2", "gpt2"), tiny_adapter(folder)]
    convert(open_checkpoint(make_model(folder / "base")), folder / "converted.gguf", "F16", name="t")
    return [*files, folder / "converted.gguf", *(tiny_encoder(folder, *kind) for kind in KINDS)]


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a child import this folder's modules."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


def outcomes(files: list[Path], base: Path, log: Path) -> dict[Path, str]:
    """File -> rejected, loaded, refused, crashed or hung. One child opens many; a new one after a crash."""
    opener, reader = _SUFFIX[files[0].suffix]
    found: dict[Path, str] = {}
    for file in files:
        began = time.monotonic()
        try:
            reader(file)
        except ModelRejected:
            found[file] = "rejected"
        assert time.monotonic() - began < PATIENCE
    left = [file for file in files if file not in found]
    while left:
        log.write_text("")
        child = worker.start(
            opener,
            doing="Opening",
            timeout=PATIENCE * len(left),
            memory=6_000_000_000,
            writes=[log.parent],
            files=[str(file) for file in left],
            base=str(base),
            log=str(log),
        )
        last, since, ended = "", time.monotonic(), ""

        def watch() -> None:
            nonlocal last, since
            if (said := log.read_text()) != last:
                last, since = said, time.monotonic()
            elif said and time.monotonic() - since > PATIENCE:
                raise TimeoutError

        try:
            child.result(watch)
        except EngineFailed as problem:
            ended = f"crashed: {problem.message}"
        except TimeoutError:
            ended = "hung"
        lines = log.read_text().splitlines()
        if len(lines) % 2:
            lines.append(ended)
        done = [(Path(a.removeprefix("open ")), b) for a, b in zip(lines[::2], lines[1::2], strict=True)]
        assert done, ended
        found |= dict(done)
        left = [file for file in left if file not in found]
    return found


def run_gguf(seeds: list[Path], folder: Path, count: int, first: int = 0) -> Counter[str]:
    kept = [(file, file.read_bytes()) for file in seeds]
    parts = [take_apart(content) for _, content in kept]
    total: Counter[str] = Counter()
    for start in range(first, first + count, 250):
        files = []
        for number in range(start, min(first + count, start + 250)):
            chance = random.Random(number)
            at = number % len(seeds)
            files.append(folder / f"{number}-{kept[at][0].name}")
            files[-1].write_bytes(changed_gguf(kept[at][1], parts[at], chance))
        total += _tally(outcomes(files, seeds[0], folder / "log"), folder)
    return total


def run_safetensors(folder: Path, count: int) -> Counter[str]:
    seed = folder / "seed.safetensors"
    tensors = {"a.weight": np.ones((4, 8), np.float32), "b.bias": np.ones(3, np.float16)}
    save_file(tensors | {"c": np.arange(6)}, seed, {"format": "pt"})
    content = seed.read_bytes()
    files = []
    for number in range(count):
        files.append(folder / f"{number}.safetensors")
        files[-1].write_bytes(changed_safetensors(content, random.Random(number)))
    return _tally(outcomes(files, seed, folder / "log"), folder)


def _tally(found: dict[Path, str], folder: Path) -> Counter[str]:
    keep = os.environ.get("CLOISTER_FUZZ_KEEP")
    for file, how in found.items():
        if keep and not how.startswith(("rejected", "loaded", "refused")):
            Path(keep, file.name).write_bytes(file.read_bytes())
            print(file.name, how)  # noqa: T201
        file.unlink()
    return Counter(how.split(":")[0] for how in found.values())


@pytest.mark.usefixtures("helpers")
def test_the_untouched_files_are_accepted_and_load(seeds: list[Path], tmp_path: Path) -> None:
    assert set(outcomes(seeds, seeds[0], tmp_path / "log").values()) == {"loaded"}
    for file in seeds:
        assert take_apart(put_together(take_apart(file.read_bytes()))) == take_apart(file.read_bytes())
        if "adapter" in file.name:
            check_adapter_gguf(file, seeds[0])
            with pytest.raises(ModelRejected, match="an adapter, not a model"):
                check_gguf(file)
            with pytest.raises(ModelRejected, match="no adapter of"):
                check_adapter_gguf(file, seeds[1])


@pytest.mark.usefixtures("helpers")
def test_a_sample_of_changed_headers_harms_nobody(seeds: list[Path], tmp_path: Path) -> None:
    found = run_gguf(seeds, tmp_path, 120) + run_safetensors(tmp_path, 60)
    assert found["hung"] == found["crashed"] == 0
    assert found["rejected"] > 60 and found["loaded"] > 5  # the changes are neither trivial nor hopeless


@pytest.mark.soak
@pytest.mark.usefixtures("helpers")
def test_five_thousand_changed_headers_harm_nobody(
    seeds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ggufs, safetensors = run_gguf(seeds, tmp_path, 4000), run_safetensors(tmp_path, 1000)
    with capsys.disabled():
        print(f"\n4000 GGUF {dict(ggufs)}, 1000 safetensors {dict(safetensors)}")  # noqa: T201
    total = ggufs + safetensors
    assert total.total() == 5000 and total["hung"] == 0
    assert total["crashed"] == 0  # no harm, but a hole in the check: keep the files (CLOISTER_FUZZ_KEEP)
