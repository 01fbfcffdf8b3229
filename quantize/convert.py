"""Writes a checkpoint, with its adapter merged in, as one GGUF file, in row chunks, without torch.

The bytes depend on the inputs alone: the same checkpoint gives the same file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFValueType, GGUFWriter

from appliance.core.errors import ModelRejected
from appliance.core.files import replacing
from quantize.arch import plan
from quantize.layout import Plan, TensorPlan
from quantize.lora import Adapter
from quantize.source import Checkpoint, read_rows, to_float32
from quantize.stream import Progress, Stored, write_tensors
from quantize.tokenizer import read_vocabulary
from quantize.vocabulary import add_vocabulary

CONVERTER = 1  # raise when the same input gives another file
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}
_CHUNK = 4_000_000  # weights at a time: 16 MB in float32
_ROWS_BY_TOKEN = ("token_embd.weight", "output.weight")  # a row that no proof text uses may be any
_FLAT = 1e-2  # relative error of a row
_FINE = 0x1400  # 2^-10 in F16: a row with a weight beyond it has a smaller error than that
# What was never trained and has only decayed (Llama 3's reserved tokens) is as good as zero.
_UNTRAINED = 1e-16
_EXPONENTS = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}
_VALUES = {
    int: GGUFValueType.UINT32,
    float: GGUFValueType.FLOAT32,
    str: GGUFValueType.STRING,
    list: GGUFValueType.ARRAY,
}


def convert(
    checkpoint: Checkpoint,
    target: Path,
    file_type: str,
    *,
    name: str,
    adapter: Adapter | None = None,
    facts: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Write `target` with matrices in `file_type` (F32, F16, BF16) and vectors in F32.

    `facts` become string values under their own keys; `progress` hears (weights done, of all).

    Raises:
        ModelRejected: not convertible with proof, or a weight that `file_type` cannot hold.
    """
    made = plan(checkpoint)
    vocabulary = read_vocabulary(checkpoint)
    with replacing(target) as draft:
        writer = GGUFWriter(draft, made.arch)
        try:
            add_facts(writer, made, file_type, vocabulary.title(clean_name(name)), facts or {})
            add_vocabulary(writer, vocabulary, checkpoint.chat_template)
            write_tensors(writer, list(_stored(made, checkpoint, file_type, adapter)), progress)
        finally:
            writer.close()
    return made


def clean_name(name: str) -> str:
    """`name` for general.name. llama.cpp reads model families out of that text (a name with
    "phi3" changes how it tokenizes), so digits and what surrounds them are kept apart.
    """
    parts = re.findall(r"[A-Za-z]+|[0-9]+", name)
    return " ".join(parts)[:64] or "model"


def add_facts(writer: GGUFWriter, made: Plan, file_type: str, name: str, facts: Mapping[str, str]) -> None:
    """Write the key-values of a model of this plan; `name` as in general.name."""
    writer.add_string("general.type", "model")
    writer.add_string("general.name", name)
    writer.add_uint32("general.file_type", FILE_TYPES[file_type])
    for key, value in made.hyperparameters.items():
        writer.add_key_value(f"{made.arch}.{key}", value, _VALUES[type(value)])
    writer.add_uint32("cloister.converter", CONVERTER)
    for key, text in facts.items():
        writer.add_string(key, text)


def _stored(made: Plan, checkpoint: Checkpoint, file_type: str, adapter: Adapter | None) -> Iterator[Stored]:
    """The tensors as they are stored: matrices in `file_type`, vectors in F32."""
    for tensor in made.tensors:
        kind = file_type if len(tensor.shape) > 1 else "F32"
        chunks = partial(_chunks, checkpoint, tensor, kind, adapter)
        yield Stored(name=tensor.name, shape=tensor.shape, kind=kind, chunks=chunks)
    for name, values in made.extra.items():
        yield Stored(name=name, shape=values.shape, kind="F32", chunks=partial(iter, [values]))


def _chunks(
    checkpoint: Checkpoint, tensor: TensorPlan, kind: str, adapter: Adapter | None
) -> Iterator[np.ndarray]:
    """The tensor as it is stored, in runs of whole rows (whole heads where rows change places)."""
    source = checkpoint.tensors[tensor.source]
    update = adapter.update(tensor.source) if adapter else None
    rows = tensor.shape[0]
    unit = rows // tensor.heads if tensor.heads else 1
    step = max(1, _CHUNK // (unit * math.prod(tensor.shape[1:]))) * unit
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        values = read_rows(source, start, stop)
        if update is not None or tensor.shift or source.dtype != kind:
            values = to_float32(values, source.dtype)
            if update is not None:
                values = values + update.rows(start, stop)
            if tensor.shift:
                values = values + np.float32(tensor.shift)
            exact, values = values, _cast(values, kind)
            if kind == "F16" and tensor.name in _ROWS_BY_TOKEN:
                _check_rows(exact, values, tensor.source)
        _check_finite(values, kind, tensor.source)
        yield pair_halves(values, (stop - start) // unit) if tensor.heads else values


def pair_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from (first half, second half) to pairs, as llama.cpp's rope takes them."""
    split = values.reshape(heads, 2, values.shape[0] // (2 * heads), *values.shape[1:])
    return split.swapaxes(1, 2).reshape(values.shape)


def _cast(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "BF16":  # round to nearest, ties to even
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype(np.float16 if kind == "F16" else np.float32)


def _check_rows(exact: np.ndarray, values: np.ndarray, name: str) -> None:
    """Check that no row is too small for F16, which has nothing below 6e-8 and steps of that size above."""
    small = (values.view(np.uint16) & np.uint16(0x7FFF)).max(1) < _FINE
    if not small.any():
        return
    rows = exact[small].astype(np.float64)
    lost = np.linalg.norm(rows - values[small].astype(np.float64), axis=1)
    flat = (lost > _FLAT * np.linalg.norm(rows, axis=1)) & (np.abs(rows).max(1) > _UNTRAINED)
    if flat.any():
        raise ModelRejected(
            f"Tensor {name} has rows of weights too small for F16, which flattens them.",
            "Use a base whose token embeddings are all trained, or set those rows to zero.",
        )


def _check_finite(values: np.ndarray, kind: str, name: str) -> None:
    bits: Any = values.view(np.uint32 if kind == "F32" else np.uint16)
    mask = _EXPONENTS[kind]
    if bits.size and int((bits & bits.dtype.type(mask)).max()) == mask:
        raise ModelRejected(
            f"Tensor {name} has a weight that is not a number or too large for {kind}.",
            "The training run diverged, or the model needs BF16.",
        )
