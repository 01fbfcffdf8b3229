"""Our converter against llama.cpp's own, on a random Llama of half a GB, and our memory as models grow.

Each conversion is a child of its own with one thread; CPU seconds and peak memory are the kernel's
(wait4), with whatever the child started itself. The two take turns. llama.cpp's converter comes from the
source distribution of the installed llama-cpp-python (`--data` names an unpacked llama.cpp instead); it
reads no tokenizer.json of byte-level BPE with the transformers that we have, so the vocabulary is one with
byte fallback. It asks for the package sentencepiece before it sees that there is no
tokenizer.model for it: an empty module answers. Imports of torch and transformers count on both sides, as
they do for whoever runs them (ours asks transformers for such a vocabulary in a child of its own).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.sdist import llama_source
from bench.table import against, row, show
from bench.vocabularies import rebuild

_PARTS = ["convert_hf_to_gguf.py", "conversion/", "gguf-py/", "models/ggml-vocab-llama-spm.gguf"]
_HIDDEN, _INNER = 1024, 2816
_LAYERS = {"0.5 GB": 16, "1 GB": 37, "2 GB": 79, "4 GB": 163}
_OURS = """
import sys; from pathlib import Path
from quantize.convert import convert; from quantize.source import open_checkpoint
convert(open_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3].upper(), name="bench")
"""
_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU seconds and peak memory in bytes of one child."""

    seconds: float
    peak: int


def run(options: Any) -> None:
    """Both converters at 0.5 GB, then ours alone on larger models."""
    if options.data:
        _run(Path(options.data), options)
        return
    with llama_source(_PARTS) as source:
        _run(source, options)


def _run(source: Path, options: Any) -> None:
    rounds = options.rounds or 3
    with tempfile.TemporaryDirectory(prefix="cloister-") as made:
        work = Path(made)
        for size, layers in _LAYERS.items():
            folder = work / "model"
            subprocess.run(
                [sys.executable, "-m", "bench.convert", str(source), str(folder), str(layers)], check=True
            )
            if size == "0.5 GB":
                for kind in ("bf16", "f16"):
                    show(_both(source, folder, work, kind, rounds), options.json)
            cost = _cost(_ours(folder, work / "ours.gguf", "bf16"))
            show(
                [row("convert", f"{size} bf16 -> bf16", "our peak memory", cost.peak / 1e6, None, "MB")],
                options.json,
            )
            for file in [*folder.iterdir(), *work.glob("*.gguf")]:
                file.unlink()


def _both(source: Path, folder: Path, work: Path, kind: str, rounds: int) -> list[dict[str, Any]]:
    ours, peer = work / "ours.gguf", work / "peer.gguf"
    commands = {"ours": _ours(folder, ours, kind), "llama.cpp": _peer(source, folder, peer, kind)}
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name in list(commands)[:: 1 if turn % 2 else -1]:
            cost = _cost(commands[name])
            if turn:  # the first turn fills the caches
                costs[name].append(cost)
    seconds = {name: [cost.seconds for cost in taken] for name, taken in costs.items()}
    peaks = {name: median(cost.peak for cost in taken) / 1e6 for name, taken in costs.items()}
    equal, count = _equal(ours, peer)
    case = f"0.5 GB bf16 -> {kind}"
    return [
        against("convert", case, seconds, "ours", "llama.cpp"),
        row("convert", case, "peak memory", peaks["ours"], peaks["llama.cpp"], "MB"),
        row("convert", case, "tensors equal in name and bytes", equal, count, "tensors"),
    ]


def _ours(folder: Path, target: Path, kind: str) -> list[str]:
    return [sys.executable, "-c", _OURS, str(folder), str(target), kind]


def _peer(source: Path, folder: Path, target: Path, kind: str) -> list[str]:
    script = str(source / "convert_hf_to_gguf.py")
    return [sys.executable, script, str(folder), "--outfile", str(target), "--outtype", kind]


def _cost(command: list[str]) -> Cost:
    """Run a child to its end.

    Raises:
        RuntimeError: it failed.
    """
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    own = str(Path(__file__).parents[1])
    environment = {**os.environ, **threads, "PYTHONPATH": own}
    if "convert_hf_to_gguf.py" in command[1]:
        empty = Path(command[command.index("--outfile") + 1]).parent / "empty"
        empty.mkdir(exist_ok=True)
        (empty / "sentencepiece.py").write_text("class SentencePieceProcessor: ...\n")
        environment["PYTHONPATH"] = f"{Path(command[1]).parent / 'gguf-py'}:{empty}"
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read() if child.stderr else b""
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(said.decode(errors="replace")[-2000:])
    return Cost(seconds=used.ru_utime + used.ru_stime, peak=used.ru_maxrss * 1024)


def _equal(ours: Path, peer: Path) -> tuple[int, int]:
    """Tensors that are the same in both files, of all; read in a child, since memory that this process
    once had would count as that of the children to come."""
    told = subprocess.run(
        [sys.executable, "-m", "bench.convert", "equal", str(ours), str(peer)],
        check=True,
        capture_output=True,
        text=True,
    )
    same, count = told.stdout.split()
    return int(same), int(count)


def compare(ours: Path, peer: Path) -> tuple[int, int]:
    """Tensors equal in name, type and bytes, and how many names there are."""
    from gguf import GGUFReader

    mine, theirs = ({tensor.name: tensor for tensor in GGUFReader(file).tensors} for file in (ours, peer))
    same = [
        name
        for name in theirs.keys() & mine.keys()
        if mine[name].tensor_type == theirs[name].tensor_type
        and bool((mine[name].data == theirs[name].data).all())
    ]
    return len(same), len(theirs.keys() | mine.keys())


def make_model(source: Path, folder: Path, layers: int) -> None:
    """A random bf16 checkpoint with the Llama 2 vocabulary, in one file a layer."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    config, words, tokenizer = rebuild(source / "models" / "ggml-vocab-llama-spm.gguf")
    tokenizer["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    config |= {
        "hidden_size": _HIDDEN,
        "intermediate_size": _INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    for name, content in (
        ("config", config),
        ("tokenizer_config", words | {"tokenizer_class": "LlamaTokenizer"}),
        ("tokenizer", tokenizer),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    torch.manual_seed(0)
    placed: dict[str, str] = {}
    for layer in range(-1, layers):
        tensors = _outer(config["vocab_size"]) if layer < 0 else _layer(layer)
        shard = f"model-{layer + 1:05d}.safetensors"
        save_file(
            {name: torch.randn(shape).mul_(0.02).bfloat16() for name, shape in tensors.items()},
            folder / shard,
        )
        placed |= dict.fromkeys(tensors, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def _outer(vocab: int) -> dict[str, tuple[int, ...]]:
    return {"model.embed_tokens.weight": (vocab, _HIDDEN), "model.norm.weight": (_HIDDEN,)}


def _layer(layer: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        **{f"self_attn.{part}_proj": (_HIDDEN, _HIDDEN) for part in "qkvo"},
        "mlp.gate_proj": (_INNER, _HIDDEN),
        "mlp.up_proj": (_INNER, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _INNER),
        "input_layernorm": (_HIDDEN,),
        "post_attention_layernorm": (_HIDDEN,),
    }
    return {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}


if __name__ == "__main__":
    if sys.argv[1] == "equal":
        print(*compare(Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        make_model(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
