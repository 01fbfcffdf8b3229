"""Tiny GGUF files of every architecture, taken apart and put together again, and what a child does."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter

from appliance.core.errors import ApplianceError
from quantize.foreign import is_embedder
from quantize.header import read_gguf
from quantize.kernel import try_adapter, try_embedder, try_file

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
FORMS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
WIDTH, HEADS, SHARED, HEAD, INNER, LAYERS = 64, 4, 2, 16, 96, 2


# --- files


@dataclass
class Parts:
    """A GGUF taken apart; `pairs` are (key, type, bytes of the value)."""

    pairs: list[tuple[bytes, int, bytes]]
    tensors: list[tuple[bytes, list[int], int, bytes]]
    alignment: int = 32


def take_apart(content: bytes) -> Parts:
    at = 24
    count, keys = struct.unpack_from("<QQ", content, 8)

    def number(form: str) -> Any:
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(form, content, at - struct.calcsize(form))[0]

    def text() -> bytes:
        nonlocal at
        length = number("<Q")
        at += length
        return content[at - length : at]

    pairs = []
    for _ in range(keys):
        key, kind, start = text(), number("<I"), at
        if kind == 8:
            text()
        elif kind == 9:
            inner, items = number("<I"), number("<Q")
            for _ in range(items) if inner == 8 else ():
                text()
            at += 0 if inner == 8 else items * WIDTHS[inner]
        else:
            at += WIDTHS[kind]
        pairs.append((key, kind, content[start:at]))
    infos = [
        (text(), [number("<Q") for _ in range(number("<I"))], number("<I"), number("<Q"))
        for _ in range(count)
    ]
    data = -(-at // 32) * 32
    ends = [offset for *_, offset in infos[1:]] + [len(content) - data]
    tensors = [
        (name, dims, kind, content[data + offset : data + end])
        for (name, dims, kind, offset), end in zip(infos, ends, strict=True)
    ]
    return Parts(pairs, tensors)


def put_together(parts: Parts) -> bytes:
    out = struct.pack("<4sIQQ", b"GGUF", 3, len(parts.tensors), len(parts.pairs))
    for key, kind, value in parts.pairs:
        out += string(key) + struct.pack("<I", kind) + value
    offset = 0
    for name, dims, kind, data in parts.tensors:
        out += string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        offset += -(-len(data) // parts.alignment) * parts.alignment
    out += bytes(-len(out) % parts.alignment)
    for *_, data in parts.tensors:
        out += data + bytes(-len(data) % parts.alignment)
    return out


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def tiny(folder: Path, arch: str, words: str) -> Path:
    """A random model of `arch` with a tokenizer of the kind `words` (gpt2, llama, t5), without torch."""
    chance = np.random.default_rng(3)
    file = folder / f"{arch}-{words}.gguf"
    writer = GGUFWriter(file, arch)
    writer.add_name("tiny")
    writer.add_file_type(0)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if arch.startswith("gemma"):
        writer.add_sliding_window(64)
    count = add_words(writer, words)
    shapes = {"token_embd": (count, WIDTH), "output_norm": (WIDTH,)}
    norms = ["attn_norm", "ffn_norm"] + ["post_attention_norm", "post_ffw_norm"] * arch.startswith("gemma")
    for layer in range(LAYERS):
        of = dict.fromkeys(norms, (WIDTH,))
        if arch in ("qwen3", "gemma3"):
            of |= {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)}
        rows = {"attn_q": HEADS * HEAD, "attn_k": SHARED * HEAD, "attn_v": SHARED * HEAD}
        of |= (
            {"attn_qkv": (sum(rows.values()), WIDTH)}
            if arch == "phi3"
            else {name: (n, WIDTH) for name, n in rows.items()}
        )
        of |= {"attn_output": (WIDTH, HEADS * HEAD), "ffn_down": (WIDTH, INNER)}
        of |= {"ffn_up": (2 * INNER if arch == "phi3" else INNER, WIDTH)}
        if arch != "phi3":
            of |= {"ffn_gate": (INNER, WIDTH)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of.items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", chance.normal(0, 0.1, shape).astype(np.float32))
    finish(writer)
    return file


def add_words(writer: GGUFWriter, words: str, *, chat: bool = True) -> int:
    letters = [chr(code) for code in range(33, 127)]
    if words == "gpt2":
        tokens = ["<s>", "</s>", "<pad>", *letters, "Ġ", "Ċ", "th", "the"]
        types = [3, 3, 3] + [1] * (len(tokens) - 3)
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(["t h", "th e"])
    else:
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *letters, "▁", "▁the"]
        types = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259)
        writer.add_token_scores([-float(n) for n in range(len(tokens))])
        if words == "t5":
            writer.add_precompiled_charsmap(struct.pack("<I", 1024) + bytes(1024) + b"x\0")
            writer.add_unk_token_id(0)
    writer.add_tokenizer_model(words)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("</s>"))
    writer.add_add_bos_token(True)
    if chat:
        writer.add_chat_template(TEMPLATE)
    return len(tokens)


def tiny_adapter(folder: Path) -> Path:
    """A LoRA adapter for `tiny(folder, "llama", ...)`."""
    chance = np.random.default_rng(4)
    file = folder / "adapter.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for layer in range(LAYERS):
        for name, rows in (("attn_q", HEADS * HEAD), ("ffn_up", INNER)):
            a, b = chance.normal(0, 0.1, (4, WIDTH)), chance.normal(0, 0.1, (rows, 4))
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_a", a.astype(np.float32))
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_b", b.astype(np.float32))
    finish(writer)
    return file


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- in the child


def open_all(files: list[str], base: str, log: str) -> None:
    """Open each file as an import would and log how it went; a hang is ended by the parent."""
    with Path(log).open("a", buffering=1) as out:
        for file in files:
            out.write(f"open {file}\n")
            try:
                if "adapter" in Path(file).name:
                    try_adapter(base, file)
                else:
                    (try_embedder if is_embedder(read_gguf(Path(file)).values) else try_file)(file)
                out.write("loaded\n")
            except ApplianceError:
                out.write("refused\n")


def open_safetensors(files: list[str], base: str, log: str) -> None:
    """The same for safetensors: read every tensor with the library that trusts its header."""
    from safetensors import safe_open

    with Path(log).open("a", buffering=1) as out:
        for file in files:
            out.write(f"open {file}\n")
            try:
                with safe_open(file, framework="numpy") as held:
                    for name in held.keys():  # noqa: SIM118
                        held.get_tensor(name)
                out.write("loaded\n")
            except Exception:  # the library's own errors, whatever they are; a crash is none
                out.write("refused\n")


def hang() -> None:
    signal.pause()


def hang_on(file: str) -> None:
    hang()


def crash_on(file: str) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def limits() -> dict[str, Any]:
    return {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("AS", "CORE", "CPU")}


def burn() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (1, 9))
    while True:
        pass


def fill() -> int:
    return len(bytes(1 << 40))


def flood() -> None:
    while True:
        print("x" * 100_000)  # noqa: T201


def lie(folder: str) -> None:
    """Leave an answer that is none, as a child taken over by its file could."""
    call = Path(sys.argv[1])
    assert call.is_dir(), folder
    (call / "error.json").write_text('{"kind": ["x"]}')
    os._exit(3)


def open_doors(path: str) -> dict[str, str]:
    """What a child may still open: a socket to the network, and the unix socket at `path`."""
    found = {}
    for name, family, address in (
        ("network", socket.AF_INET, ("127.0.0.1", 9)),
        ("unix", socket.AF_UNIX, path),
    ):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as link:
                link.connect(address)
            found[name] = "open"
        except OSError as problem:
            found[name] = type(problem).__name__
    return found


def place() -> str:
    """Where a child found the standard library's json."""
    return str(json.__file__)


def keys_and_files(there: list[str]) -> dict[str, Any]:
    """What this process has of the keys of its parent, and which of the folders `there` it may write."""
    opened = {}
    for folder in there:
        try:
            (Path(folder) / "planted").write_text("x")
            opened[folder] = "open"
        except OSError as problem:
            opened[folder] = type(problem).__name__
    held = [os.path.realpath(f"/proc/self/fd/{one}") for one in range(64)]
    return {
        "named": "CLOISTER_KEYS" in os.environ,
        "keys": [one for one in held if "CLOISTER_KEYS" in one],
        **opened,
    }
