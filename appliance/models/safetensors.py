"""Reads safetensors headers strictly, before any library that trusts them.

Format: 8 bytes little-endian header length, a JSON object of that length, then the tensors' bytes.
Refused: headers beyond the file or 32 MB (200,000 tensors), anything named twice, numbers that are not
whole, unknown types, offsets that overlap, leave holes, or do not match shape and type.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from appliance.core.errors import ModelRejected
from appliance.core.reading import open_reading, read_bytes, size_of

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_LARGEST_HEADER, _LARGEST_INDEX = 32_000_000, 32_000_000
_MOST_TENSORS, _MOST_DIMENSIONS, _LONGEST_NAME, _MOST_SHARDS = 200_000, 8, 1000, 10_000
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
        if file.exists() and not file.is_file():
            raise ValueError("no regular file")
        length_of_file = size_of(file)
        with open_reading(file) as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_LARGEST_HEADER, length_of_file - 8):
                raise ValueError("header longer than the file")
            header = strict_json(stream.read(length))
        _check_words(header.pop("__metadata__", {}))
        if len(header) > _MOST_TENSORS:
            raise ValueError(f"{len(header)} tensors")
        tensors = {name: _tensor(name, entry, file, 8 + length) for name, entry in header.items()}
        end = 8 + length
        for tensor in sorted(tensors.values(), key=lambda part: (part.start, part.size)):
            if tensor.start != end:
                raise ValueError("tensors overlap or leave a hole")
            end += tensor.size
        if end != length_of_file:
            raise ValueError(f"{length_of_file - end:+d} bytes against the header")
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, OSError, RecursionError, struct.error) as problem:
        raise ModelRejected(
            f"{file.name} is not a whole safetensors file: {str(problem)[:200]}.",
            "Copy it again from its source.",
        ) from problem
    return tensors


def strict_json(content: bytes) -> dict[str, Any]:
    """The JSON object of `content`, which is UTF-8, starts with "{" and names nothing twice.

    Numbers must be whole and below 2**63: readers written in C or Rust take any other for something else.

    Raises:
        ValueError, RecursionError: it is something else.
    """
    if content[:1] != b"{":
        raise ValueError("its header is no JSON object")
    value = json.loads(
        content.decode("utf-8"),
        object_pairs_hook=_object,
        parse_int=_whole,
        parse_float=_no_number,
        parse_constant=_no_number,
    )
    if not isinstance(value, dict):
        raise ValueError("its header is no JSON object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("something is named twice")
    return made


def _whole(text: str) -> int:
    if len(text) > 19 or not 0 <= (number := int(text)) < 1 << 63:
        raise ValueError(f"the number {text[:24]}")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"the number {text[:24]}")


def _check_words(words: object) -> None:
    if not isinstance(words, dict) or not all(isinstance(value, str) for value in words.values()):
        raise ValueError("__metadata__ holds something else than texts")


def _tensor(name: str, entry: dict[str, object], file: Path, base: int) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"bad entry for {name[:80]!r}")
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"the name {name[:80]!r}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        raise ValueError(f"bad entry for {name!r}")
    if dtype not in _WIDTHS or len(shape) > _MOST_DIMENSIONS or len(offsets) != 2:
        raise ValueError(f"the type {dtype[:20]} or shape of {name!r}")
    if any(type(number) is not int for number in [*shape, *offsets]):
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
        placed, shards = _read_index(index)
    except (ValueError, OSError, RecursionError) as problem:
        raise ModelRejected(
            f"{_INDEX} cannot be used: {str(problem)[:200]}.", "Copy it again from its source."
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


def _read_index(index: Path) -> tuple[dict[str, str], list[str]]:
    """Tensor -> shard, and the shards; its `metadata` may hold anything."""
    if not index.is_file() or size_of(index) > _LARGEST_INDEX:
        raise ValueError("no regular file, or too large")
    content = json.loads(read_bytes(index), object_pairs_hook=_object)
    placed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(placed, dict) or not all(isinstance(shard, str) for shard in placed.values()):
        raise ValueError("it maps no tensors to files")
    shards = sorted(set(placed.values()))
    if any("/" in shard or "\\" in shard or not shard.endswith(".safetensors") for shard in shards):
        raise ValueError("it names a file outside the folder")
    if not 0 < len(shards) <= _MOST_SHARDS or len(placed) > _MOST_TENSORS:
        raise ValueError(f"{len(placed)} tensors in {len(shards)} files")
    return placed, shards
