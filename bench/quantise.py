"""Quantising through our child process against the native tool, and what a whole proof takes.

`--native FILE` is a llama-quantize built from the very source that is installed; in the unpacked source
package of llama-cpp-python, with LIB the folder llama_cpp/lib of the installed one:

    cd vendor/llama.cpp && c++ -std=c++17 -O2 -Icommon -Iinclude -Iggml/include -Ivendor \
        tools/quantize/main.cpp tools/quantize/quantize.cpp -LLIB -Wl,-rpath,LIB \
        -lllama-common -lllama -lggml -lggml-base -o llama-quantize

Without it the peer is llama_model_quantize, called in a bare Python process. Both write the same
bytes, or the benchmark fails. The models are random, of a real shape, with the shipped base's
tokenizer; `--shape` takes another one than Qwen2.5-0.5B.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.shapes import SHAPES, Shape
from bench.table import against, in_turns, row, show

_TYPES = ("Q8_0", "Q4_0", "Q4_K_M")
_TARGET = 180.0  # seconds for the whole proof of a 0.5B model on 2 cores
_LOOSE = {"kld_mean": 99.0, "same_top_clear": 0.0, "perplexity_ratio": 99.0}  # random weights: no step-up
_BARE = """
import ctypes, sys
from llama_cpp import llama_cpp as lib
lib.llama_backend_init()
params = lib.llama_model_quantize_default_params()
params.ftype, params.nthread = int(sys.argv[3]), int(sys.argv[4])
sys.exit(lib.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)))
"""


def run(options: Any) -> None:
    """Time both on one F16 file, then prove the model from its checkpoint on."""
    from quantize.convert import convert
    from quantize.source import open_checkpoint

    shape = options.shape or "Qwen2.5-0.5B"
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as place:
        folder = Path(place)
        base = random_base(SHAPES[shape], folder / "base")
        convert(open_checkpoint(base), folder / "f16.gguf", "F16", name="bench")
        rows = []
        for kind in _TYPES:
            rows += _speed(shape, kind, folder, options)
        (folder / "f16.gguf").unlink()
        show([*rows, *_proof(shape, base, folder)], options.json)


def random_base(shape: Shape, folder: Path) -> Path:
    """A checkpoint of `shape` (Llama's layout, F16) with random weights."""
    import numpy as np
    from safetensors.numpy import save_file

    from appliance.models.importing import DEMO_BASE

    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(DEMO_BASE / name, folder / name)
    head = shape.hidden // shape.heads
    config = json.loads((DEMO_BASE / "config.json").read_text()) | {
        "hidden_size": shape.hidden,
        "head_dim": head,
        "intermediate_size": shape.inter,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv,
        "vocab_size": shape.vocab,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    draw = np.random.default_rng(0)

    def weights(*size: int) -> Any:
        return (draw.standard_normal(size, np.float32) * 0.02).astype(np.float16)

    tensors = {"model.embed_tokens.weight": weights(shape.vocab, shape.hidden)}
    norms = ["model.norm.weight"]
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        norms += [f"{at}.input_layernorm.weight", f"{at}.post_attention_layernorm.weight"]
        for name, rows, columns in (
            ("self_attn.q_proj", shape.hidden, shape.hidden),
            ("self_attn.k_proj", shape.kv * head, shape.hidden),
            ("self_attn.v_proj", shape.kv * head, shape.hidden),
            ("self_attn.o_proj", shape.hidden, shape.hidden),
            ("mlp.gate_proj", shape.inter, shape.hidden),
            ("mlp.up_proj", shape.inter, shape.hidden),
            ("mlp.down_proj", shape.hidden, shape.inter),
        ):
            tensors[f"{at}.{name}.weight"] = weights(rows, columns)
    tensors |= {name: np.ones(shape.hidden, np.float16) for name in norms}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _speed(shape: str, kind: str, folder: Path, options: Any) -> list[dict[str, Any]]:
    from appliance.models.llama import physical_cores
    from quantize import worker
    from quantize.kernel import quantize_file
    from quantize.recipe import QUANTISED

    source, mine, theirs = (folder / f"{name}.gguf" for name in ("f16", "ours", "peer"))
    threads = physical_cores()
    bare = [sys.executable, "-c", _BARE, str(source), str(theirs), str(QUANTISED[kind]), str(threads)]
    native = [str(options.native), str(source), str(theirs), kind, str(threads)]
    peer = "llama-quantize" if options.native else "bare call"
    names = {"source": str(source), "target": str(mine), "kind": kind}
    works = {
        "ours": lambda: worker.run(quantize_file, doing="Quantising", writes=[folder], **names),
        peer: lambda: subprocess.run(native if options.native else bare, check=True, capture_output=True),
    }
    rounds = options.rounds or 3
    rows = []
    for clock, unit in ((_children, "CPU s"), (time.perf_counter, "s")):
        rows.append(
            against("quantise", f"{shape} {kind}", in_turns(works, rounds, clock), "ours", peer, unit)
        )
    if mine.read_bytes() != theirs.read_bytes():
        raise SystemExit(f"{kind}: the bytes are not those of the {peer}")
    size = mine.stat().st_size
    rows.append(row("quantise", f"{shape} {kind}", f"bytes, equal to {peer}'s", size, size, "bytes"))
    mine.unlink()
    theirs.unlink()
    return rows


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _proof(shape: str, base: Path, folder: Path) -> list[dict[str, Any]]:
    from appliance.core.files import sha256_folder
    from appliance.core.home import open_home
    from appliance.core.job import Job
    from appliance.models import registry
    from appliance.models.registry import Model
    from quantize.pipeline import quantize_model

    home = open_home(folder / "home")
    entry = Model(name="random", kind="base", path=base, sha256=sha256_folder(base), size=0)
    registry.add(home, entry, who="bench")
    work = home.jobs / "bench"
    work.mkdir()
    job = Job(id="bench", kind="quantize", folder=work, home=home, who="bench")
    began, used = time.perf_counter(), _children() + time.process_time()
    files = quantize_model(job, "random", ["Q8_0", "Q4_K_M"], limits={"Q8_0": _LOOSE, "Q4_K_M": _LOOSE})
    wall, cpu = time.perf_counter() - began, _children() + time.process_time() - used
    case = f"{shape}, {len(os.sched_getaffinity(0))} cores"
    made = "+".join(file["type"] for file in files)
    return [
        row("quantise", case, f"{made}, made and proven/target", wall, _TARGET, "s"),
        row("quantise", case, f"{made}, made and proven", cpu, None, "CPU s"),
    ]
