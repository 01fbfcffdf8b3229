"""Reads safetensors headers strictly, before any library that trusts them.

Format: 8 bytes little-endian header length, a JSON object of that length, then the tensors' bytes.
Refused: headers beyond the file or 100 MB, unknown types, offsets that overlap, leave holes, or do
not match shape and type.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from appliance.core.errors import ModelRejected

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_LARGEST_HEADER = 100_000_000
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where one tensor lies: `start` and `size` are bytes in `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size: int


def read_header(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file.

    Raises:
        ModelRejected: the header is damaged or does not fit the file.
    """
    try:
        length_of_file = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_LARGEST_HEADER, length_of_file - 8):
                raise ValueError("header longer than the file")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _tensor(name, entry, file, 8 + length) for name, entry in header.items()}
        end = 8 + length
        for tensor in sorted(tensors.values(), key=lambda part: part.start):
            if tensor.start != end:
                raise ValueError("tensors overlap or leave a hole")
            end += tensor.size
        if end != length_of_file:
            raise ValueError(f"{length_of_file - end:+d} bytes against the header")
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as problem:
        raise ModelRejected(
            f"{file.name} is not a whole safetensors file: {problem}.", "Copy it again from its source."
        ) from problem
    return tensors


def _tensor(name: str, entry: dict[str, object], file: Path, base: int) -> Tensor:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        raise ValueError(f"bad entry for {name!r}")
    if any(type(number) is not int or number < 0 for number in [*shape, *offsets]):
        raise ValueError(f"bad numbers for {name!r}")
    start, end = offsets
    if end - start != math.prod(shape) * _WIDTHS[dtype]:
        raise ValueError(f"size of {name!r} does not match its shape")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), file=file, start=base + start, size=end - start)


def read_headers(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint folder: one file, or shards that agree with their index.

    Raises:
        ModelRejected: no weights, a shard is missing, or index and shards disagree.
    """
    index = folder / _INDEX
    if not index.exists():
        single = folder / "model.safetensors"
        if not single.is_file():
            raise ModelRejected(
                f"{folder} has no model.safetensors.",
                "Point to the folder that holds config.json and *.safetensors.",
            )
        return read_header(single)
    try:
        if not index.is_file():
            raise ValueError("no regular file")
        placed: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        shards = sorted(set(placed.values()))
        if any("/" in shard or not shard.endswith(".safetensors") for shard in shards):
            raise ValueError("names a file outside the folder")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ModelRejected(
            f"{_INDEX} cannot be used: {problem}.", "Copy it again from its source."
        ) from problem
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ModelRejected(
            f"{len(missing)} of {len(shards)} weight files are missing: {', '.join(missing[:5])}.",
            "Copy the missing files into the folder.",
        )
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        held = read_header(folder / shard)
        if set(held) != {name for name, place in placed.items() if place == shard}:
            raise ModelRejected(
                f"{shard} does not hold what {_INDEX} says.", "Copy both again from their source."
            )
        tensors |= held
    return tensors
