"""A checkpoint folder, opened for reading tensor by tensor without torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appliance.core.errors import ModelRejected
from appliance.core.files import sha256_file
from appliance.models.load import chat_template, check_checkpoint, read_json
from appliance.models.safetensors import Tensor, read_headers

# bfloat16 has no numpy type; its 16 bits are carried as uint16.
_CARRIERS: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything of a model folder but the weights, and where each tensor lies."""

    folder: Path
    config: dict[str, Any]
    generation: dict[str, Any]
    tokenizer: dict[str, Any]
    tokenizer_config: dict[str, Any]
    chat_template: str
    tensors: dict[str, Tensor]


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check and open a folder of config, tokenizer, chat template and safetensors.

    Raises:
        ModelRejected: something is missing, damaged, pickled or not plain floating point.
    """
    check_checkpoint(folder)
    tensors = read_headers(folder)
    for tensor in tensors.values():
        _check_type(tensor)
    return Checkpoint(
        folder=folder,
        config=read_json(folder / "config.json"),
        generation=_optional(folder / "generation_config.json"),
        tokenizer=read_json(folder / "tokenizer.json"),
        tokenizer_config=_optional(folder / "tokenizer_config.json"),
        chat_template=chat_template(folder),
        tensors=tensors,
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _check_type(tensor: Tensor) -> None:
    if tensor.dtype not in _CARRIERS:
        raise ModelRejected(
            f"Tensor {tensor.name} is {tensor.dtype}; only F32, F16 and BF16 can be converted.",
            "Use the full-precision version of the model.",
        )


def read_rows(tensor: Tensor, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows `start:stop` along the first axis, in the file's own type (BF16 as uint16).

    Read, not mapped, so that memory stays bounded by what is asked for.
    """
    _check_type(tensor)
    carrier = np.dtype(_CARRIERS[tensor.dtype])
    width = int(np.prod(tensor.shape[1:], dtype=np.int64))
    stop = tensor.shape[0] if stop is None else stop
    count = (stop - start) * width
    offset = tensor.start + start * width * carrier.itemsize
    values = np.fromfile(tensor.file, carrier, count, offset=offset)
    if len(values) != count:
        raise ModelRejected(f"{tensor.file.name} ended early.", "Copy it again from its source.")
    return values.reshape(stop - start, *tensor.shape[1:])


def to_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` as `read_rows` gave them from a tensor of type `dtype`, in float32."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def source_sha256(base: Path, adapter: Path | None) -> str:
    """SHA-256 over names and contents of all files that decide what the converted file holds."""
    digest = hashlib.sha256()
    for role, folder in (("base", base), ("adapter", adapter)):
        for file in sorted(folder.iterdir()) if folder else ():
            if file.suffix in (".json", ".jinja", ".safetensors"):
                digest.update(f"{role}/{file.name}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()
