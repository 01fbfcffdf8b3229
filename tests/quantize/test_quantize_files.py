"""Headers, children, quantising, figures: everything about files but the conversion."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter, PoolingType
from quantize_support import make_model

from appliance.core.errors import ConfigWrong, EngineFailed, ModelRejected, NotFound
from appliance.core.home import open_home
from appliance.models import importing
from appliance.models.llama import LlamaFile
from appliance.serve.chosen import choose
from quantize import worker
from quantize.convert import convert
from quantize.foreign import check_gguf
from quantize.header import read_gguf
from quantize.kernel import quantize_file
from quantize.limits import LOSS, limits_with, read_limits, shortfalls
from quantize.measure import compare, loss_figures, surprise
from quantize.source import open_checkpoint
from quantize.verify import judge_chats, judge_tokens, same_words


@pytest.fixture(scope="module")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    base = make_model(
        folder / "base", hidden_size=192, intermediate_size=256, num_attention_heads=6, num_key_value_heads=6
    )
    convert(open_checkpoint(base), folder / "f16.gguf", "F16", name="wide")
    return folder / "f16.gguf"


def test_quantising_is_reproducible_and_keeps_the_words(f16: Path, tmp_path: Path) -> None:
    for name, threads in (("a", 1), ("b", 2)):
        quantize_file(str(f16), str(tmp_path / name), "Q8_0", threads=threads)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert same_words(read_gguf(tmp_path / "a"), read_gguf(f16))


def test_rows_that_fit_no_block_show_in_the_histogram(f16: Path, tmp_path: Path) -> None:
    file = tmp_path / "q4.gguf"
    quantize_file(str(f16), str(file), "Q4_K_M")
    header = read_gguf(file)
    assert header.histogram["Q5_0"] > 5  # 192 is no multiple of 256, so it is not the Q4_K asked for
    assert 4.5 < header.bits_per_weight < 8
    with LlamaFile(file, context=64) as llama:
        assert np.isfinite(llama.logits([[1, 20, 30]])[0]).all()


def test_a_failed_quantising_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"could not be quantised.*failed to open"):
        worker.run(
            quantize_file,
            doing="Quantising",
            source=str(tmp_path / "none.gguf"),
            target=str(tmp_path / "x"),
            kind="Q8_0",
        )


def test_a_crash_in_the_child_is_a_typed_error() -> None:
    with pytest.raises(EngineFailed, match=r"Opening it crashed \(SIGABRT\)"):
        worker.run(os.abort, doing="Opening it")


def test_a_hang_in_the_child_is_a_typed_error() -> None:
    began = time.monotonic()
    with pytest.raises(EngineFailed, match="took longer than 1 s"):
        worker.run(signal.pause, doing="Opening it", timeout=1)
    assert time.monotonic() - began < 10


def test_the_child_dies_with_its_parent() -> None:
    code = (
        "import signal; from quantize import worker\n"
        "child = worker.start(signal.pause, doing='x'); print(child._process.pid, flush=True)\n"
        "child.result()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        for _ in range(1200):  # until the child has asked to be told of its parent's death
            if "quantize.worker" in Path(f"/proc/{pid}/cmdline").read_text() and _state(pid) == "S":
                break
            time.sleep(0.05)
        parent.kill()
    for _ in range(1200):
        if _state(pid) in ("", "Z"):
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_sound_foreign_file_gives_its_facts(f16: Path) -> None:
    facts = check_gguf(f16)
    assert facts["type"] == "F16"
    assert facts["architecture"] == "llama"
    assert facts["context"] == 640
    assert facts["task"] is None


def test_a_foreign_file_without_template_or_with_odd_task_is_refused(f16: Path, tmp_path: Path) -> None:
    content = f16.read_bytes()
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(content.replace(b"tokenizer.chat_template", b"tokenizer.chat_templatX"))
    with pytest.raises(ModelRejected, match="no chat template"):
        check_gguf(bare)
    odd = tmp_path / "odd.gguf"
    surrogate = '{"kind": "answer", "prompt": "\\ud800 {text}"}'
    long = json.dumps({"kind": "label", "prompt": "x" * 200_000, "labels": ["a"]})
    for text in ("[1]", "[" * 200_000, surrogate, long):
        convert(open_checkpoint(f16.parent / "base"), odd, "F16", name="odd", facts={"cloister.task": text})
        with pytest.raises(ModelRejected, match=r"cloister\.task cannot be read"):
            check_gguf(odd)


def test_a_foreign_embedding_model_is_tried_as_one(f16: Path, tmp_path: Path) -> None:
    reader, file = GGUFReader(f16), tmp_path / "embed.gguf"
    writer = GGUFWriter(file, "llama")
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture", "tokenizer.chat_template")):
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    writer.add_pooling_type(PoolingType.MEAN)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    width = next(tensor.shape[0] for tensor in reader.tensors if tensor.name == "token_embd.weight")
    facts = check_gguf(file)
    assert facts["embeds"] == width and facts["task"] is None
    home = open_home(tmp_path / "home")
    importing.import_gguf(home, file, "vectors", check=check_gguf, who="tests")
    with pytest.raises(ConfigWrong, match="makes vectors and answers nothing"):
        choose(home, "vectors", gated=False)


def test_a_truncated_file_is_refused_wherever_it_ends(f16: Path, tmp_path: Path) -> None:
    content = f16.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (1, 3, 8, 20, 40, 100, 1000, 9000, len(content) // 2, len(content) - 33):
        cut.write_bytes(content[:length])
        with pytest.raises(ModelRejected):
            read_gguf(cut)
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(ModelRejected):
        read_gguf(tmp_path / "empty.gguf")


def test_a_changed_header_is_read_or_refused_but_never_trusted(f16: Path, tmp_path: Path) -> None:
    content = f16.read_bytes()
    chance = random.Random(5)
    bad, refused = tmp_path / "bad.gguf", 0
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            at = chance.choice([chance.randrange(64), chance.randrange(2000), chance.randrange(30000)])
            changed[at] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
        bad.write_bytes(changed)
        try:
            read_gguf(bad)
        except ModelRejected:
            refused += 1
    assert refused > 50


def _tiny(tensors: list[tuple[str, list[int], int, int]], data: int, keys: int = 1) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), keys)
    header += (text("general.architecture") + struct.pack("<I", 8) + text("llama")) * keys
    for name, shape, kind, offset in tensors:
        header += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return header + bytes(-len(header) % 32) + bytes(data)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_tiny([("a", [8], 0, 0), ("a", [8], 0, 32)], 64), "twice"),
        (_tiny([("a", [8], 0, 4)], 64), "at 4, not at 0"),
        (_tiny([("a", [8], 0, 0), ("b", [8], 0, 0)], 64), "at 0, not at 32"),
        (_tiny([("a", [8], 77, 0)], 64), "unknown type"),
        (_tiny([("a", [8], 2, 0)], 64), "cannot have the shape"),
        (_tiny([("a", [2**40, 2**40], 0, 0)], 64), "cannot have the shape"),
        (_tiny([("a", [0], 0, 0)], 64), "cannot have the shape"),
        (_tiny([("a", [8] * 5, 0, 0)], 64), "5 dimensions"),
        (_tiny([("a" * 64, [8], 0, 0)], 64), "64 bytes"),
        (_tiny([("a", [8], 0, 0), ("b", [32], 0, 32)], 64), "early"),
        (_tiny([], 0, keys=2), "twice"),
        (_tiny([], 0, keys=0), "no general.architecture"),
    ],
)
def test_impossible_headers_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelRejected, match=words):
        read_gguf(tmp_path / "x.gguf")


def test_figures_agree_with_their_definitions() -> None:
    chance = np.random.default_rng(0)
    x = chance.normal(size=(50, 30)).astype(np.float32) * 3
    y = x + chance.normal(size=x.shape).astype(np.float32) * 0.1
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    q = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    part = compare(y, x)
    assert np.allclose(part["kl"], (p * np.log(p / q)).sum(1), atol=1e-6)
    assert compare(x, x)["kl"].max() < 1e-12
    tokens = chance.integers(0, 30, 50)
    assert np.allclose(surprise(x, tokens), -np.log(p[np.arange(50), tokens]), atol=1e-5)
    figures = loss_figures([part | {"ours": surprise(y, tokens), "theirs": surprise(x, tokens)}])
    lead = np.sort(p, 1)[:, -1] - np.sort(p, 1)[:, -2]
    same = p.argmax(1) == q.argmax(1)
    assert figures["same_top_clear"] == pytest.approx(same[lead >= 0.1].mean())


def test_limits_are_settings_and_not_a_number_never_passes() -> None:
    bounds = limits_with(read_limits(["q4_k_m.kld_mean=0.5", "Q8_0.kld_max=2"]))
    assert (bounds["Q8_0"].kld_mean, bounds["Q8_0"].kld_max) == (0.01, 2.0)
    good = {"kld_mean": 0.3, "same_top_clear": 0.99, "perplexity_ratio": 1.0, "perplexity_f16": 9.0}
    assert shortfalls(good, bounds["Q4_K_M"]) == []
    assert shortfalls(good, LOSS["Q4_K_M"]) == ["kld_mean 0.3, limit 0.1"]
    assert shortfalls({**good, "kld_mean": float("nan")}, bounds["Q4_K_M"])
    assert shortfalls({**good, "perplexity_ratio": 1.2}, bounds["Q4_K_M"]) == [
        "perplexity_ratio 1.2, limit 1.05"
    ]
    assert shortfalls({**good, "perplexity_ratio": 1.2, "perplexity_f16": 700.0}, bounds["Q4_K_M"]) == []
    assert shortfalls({**good, "kld_max": 3.0, "kld_mean": 0.001}, bounds["Q8_0"]) == [
        "same_top_clear 0.99, limit 0.995",
        "kld_max 3, limit 2",
    ]
    for wrong in ({"Q4_K_M": {"speed": 1.0}}, {"Q9": {"kld_mean": 1.0}}):
        with pytest.raises(ConfigWrong, match="no such quantising limit"):
            limits_with(wrong)
    for text in ("Q4_K_M.kld_mean", "Q4_K_M.kld_mean=nan", "Q4_K_M.kld_mean=inf", "x=y"):
        with pytest.raises(ConfigWrong, match="is no limit"):
            read_limits([text])


def test_tokens_and_chats_have_limits_too() -> None:
    wanted = {
        "plain": [[1], [2], [3], [4]],
        "special": [[1], [2], [3], [4]],
        "added": [],
        "spelled": [],
        "ends": [7],
    }
    wanted |= {"bos": 1, "eos": 2, "adds_bos": True, "width": 9, "chats": []}
    seen = {**wanted, "plain": [[1], [2], [3], [5]], "control": [], "kept": [], "ends_here": [7, 8]}
    assert judge_tokens(list("abcd"), wanted, seen)[1] == ["token ids differ on 1 of 4 strings (first: 3)"]
    assert judge_tokens(list("abcd"), wanted, seen, 0.75)[1] == []
    chats = {"chats": [{"text": "a", "ids": [1]}, {"text": "b", "ids": [2]}]}
    other = {"chats": [{"text": "a", "ids": [1]}, {"text": "B", "ids": [2]}]}
    assert judge_chats(chats, other)[1] == ["1 of 2 chats are rendered otherwise"]
    assert judge_chats(chats, other, 0.5)[1] == []


def test_a_missing_gguf_is_not_found(tmp_path: Path) -> None:
    with pytest.raises((ModelRejected, NotFound)):
        read_gguf(tmp_path / "none.gguf")
