"""Tensors written to a GGUF file chunk by chunk: memory is bounded by one chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

Progress = Callable[[float, float], None]
_ALIGNMENT = 32  # bytes; GGUF's default


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor: `kind` is F32, F16 or BF16, `chunks` gives its rows in order, in that type."""

    name: str
    shape: tuple[int, ...]
    kind: str
    chunks: Callable[[], Iterator[np.ndarray]]


def write_tensors(writer: GGUFWriter, tensors: Sequence[Stored], progress: Progress | None = None) -> None:
    """Write header, key-values and `tensors`; `progress` hears (weights done, of all)."""
    for tensor in tensors:
        size = math.prod(tensor.shape) * (4 if tensor.kind == "F32" else 2)
        kind = GGMLQuantizationType[tensor.kind]
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    stream = (writer.fout or [])[0]
    _pad(stream)
    done, total = 0, sum(math.prod(tensor.shape) for tensor in tensors)
    for tensor in tensors:
        for chunk in tensor.chunks():
            stream.write(np.ascontiguousarray(chunk).data)
            done += chunk.size
            if progress:
                progress(done, total)
        _pad(stream)


def _pad(stream: BinaryIO) -> None:
    stream.write(bytes(-stream.tell() % _ALIGNMENT))
