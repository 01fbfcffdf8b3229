"""Checks a GGUF's header before any parser written in C sees the file.

Format (version 3, little-endian): magic, version, number of tensors, number of key-values, the
key-values, then per tensor its name, shape, type and offset, then the data at the next multiple of
`general.alignment` (32). Everything is bounded by the file's size and by the limits below.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from appliance.core.errors import ModelRejected
from appliance.models.task import KINDS, task_from
from quantize import worker
from quantize.kernel import TYPE_NAMES, try_file

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"}
_SCALARS |= {10: "<Q", 11: "<q", 12: "<d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_MOST_TENSORS, _MOST_VALUES = 100_000, 10_000
_LONGEST_NAME, _LONGEST_KEY, _LONGEST_TEXT = 63, 256, 4_000_000
_MOST_ITEMS = 4_000_000
_LARGEST_ALIGNMENT = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Gguf:
    """What the header says. `arrays`: key -> (number of items, SHA-256 of their bytes)."""

    values: dict[str, Any]
    arrays: dict[str, tuple[int, str]]
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    parameters: int
    tensor_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits of all tensors per parameter."""
        return 8 * self.tensor_bytes / max(1, self.parameters)

    @property
    def histogram(self) -> dict[str, int]:
        """Type -> number of tensors of more than one dimension, most frequent first."""
        return dict(Counter(kind for kind, shape in self.tensors.values() if len(shape) > 1).most_common())


def read_gguf(path: Path) -> Gguf:
    """Read and check the header of a GGUF file; nothing written in C sees it.

    Raises:
        ModelRejected: anything out of bounds, unknown, doubled, misaligned or beyond the file.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(content).read()
    except FileNotFoundError as problem:
        raise ModelRejected(f"There is no file {path}.", "Check the path.") from problem
    except (ValueError, struct.error, OSError) as problem:
        raise ModelRejected(
            f"{path.name} is not a sound GGUF file: {problem}.", "Copy it again from its source."
        ) from problem


def check_gguf(path: Path) -> dict[str, Any]:
    """Check a GGUF that someone else made: its header here, then a trial in a child process.

    Returns facts for its registry entry. It is sound and can be served; nothing proves what it is.

    Raises:
        ModelRejected: the header is unsound, it has no usable chat template, or it is not a model.
        EngineFailed: llama.cpp crashed or hung on it.
    """
    header = read_gguf(path)
    seen = worker.run(
        try_file,
        doing=f"Opening {path.name} in llama.cpp",
        timeout=300,
        memory=4_000_000_000 + 3 * path.stat().st_size,
        file=str(path),
    )
    return {
        "type": TYPE_NAMES.get(header.values.get("general.file_type", -1), "other"),
        "architecture": header.values["general.architecture"],
        "parameters": header.parameters,
        "bits_per_weight": round(header.bits_per_weight, 3),
        "histogram": header.histogram,
        "context": seen["context"],
        "task": _task(header.values.get("cloister.task")),
        "privacy": None,
        "proof": None,
    }


def _task(text: object) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        task = task_from(json.loads(str(text)))
        parts = (task.kind, task.prompt, *task.labels)
        if task.kind not in KINDS or not all(isinstance(part, str) for part in parts):
            raise ValueError("not a task")
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise ModelRejected(
            "The file's cloister.task cannot be read.", "Export the model again where it was made."
        ) from problem
    return task.as_dict()


class _Reader:
    def __init__(self, content: mmap.mmap) -> None:
        self.content = content
        self.at = 0

    def read(self) -> Gguf:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not start with GGUF")
        if (version := self._number("<I")) != 3:
            raise ValueError(f"version {version}, not 3")
        tensor_count, value_count = self._number("<Q"), self._number("<Q")
        if tensor_count > _MOST_TENSORS or value_count > _MOST_VALUES:
            raise ValueError(f"{tensor_count} tensors and {value_count} values")
        values, arrays = self._values(value_count)
        tensors, size = self._tensors(tensor_count, _alignment(values))
        return Gguf(
            values=values,
            arrays=arrays,
            tensors=tensors,
            parameters=sum(math.prod(shape) for _, shape in tensors.values()),
            tensor_bytes=size,
        )

    def _values(self, count: int) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
        values: dict[str, Any] = {}
        arrays: dict[str, tuple[int, str]] = {}
        for _ in range(count):
            key = self._text(_LONGEST_KEY)
            if not key or not key.isascii() or not key.isprintable():
                raise ValueError(f"key {key[:40]!r}")
            if key in values or key in arrays:
                raise ValueError(f"key {key} twice")
            kind = self._number("<I")
            if kind == _ARRAY:
                start = self.at
                items = self._array(key)
                arrays[key] = (items, hashlib.sha256(self.content[start : self.at]).hexdigest())
            else:
                values[key] = self._value(kind, key)
        if not isinstance(values.get("general.architecture"), str):
            raise ValueError("no general.architecture")
        return values, arrays

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._text(_LONGEST_TEXT)
        if kind not in _SCALARS:
            raise ValueError(f"{key} has the unknown type {kind}")
        if kind == _BOOL and self.content[self.at : self.at + 1] not in (b"\0", b"\1"):
            raise ValueError(f"{key} is neither true nor false")
        return self._number(_SCALARS[kind])

    def _array(self, key: str) -> int:
        """Step over an array; the tokens among them must differ, else llama.cpp aborts."""
        kind, count = self._number("<I"), self._number("<Q")
        if count > _MOST_ITEMS or kind not in (*_SCALARS, _STRING):
            raise ValueError(f"{key} holds {count} items of type {kind}")
        if kind != _STRING:
            self._bytes(count * struct.calcsize(_SCALARS[kind]))
            return count
        texts = [self._bytes(self._number("<Q")) for _ in range(count)]
        if key == "tokenizer.ggml.tokens" and len(set(texts)) != count:
            raise ValueError("the same token twice")
        return count

    def _tensors(self, count: int, alignment: int) -> tuple[dict[str, tuple[str, tuple[int, ...]]], int]:
        tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
        expected = total = 0
        for _ in range(count):
            name = self._text(_LONGEST_NAME)
            if not name or name in tensors:
                raise ValueError(f"tensor {name!r} twice or unnamed")
            shape, kind, size = self._layout(name)
            if (offset := self._number("<Q")) != expected:
                raise ValueError(f"tensor {name} at {offset}, not at {expected}")
            tensors[name] = (kind, shape)
            total += size
            expected = _up(offset + size, alignment)
        data = _up(self.at, alignment)
        if tensors and data + expected - len(self.content) >= alignment:
            raise ValueError(f"it ends {data + expected - len(self.content)} bytes early")
        return tensors, total

    def _layout(self, name: str) -> tuple[tuple[int, ...], str, int]:
        dimensions = self._number("<I")
        if not 1 <= dimensions <= 4:
            raise ValueError(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))
        try:
            kind = GGMLQuantizationType(self._number("<I"))
            block, width = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise ValueError(f"tensor {name} has an unknown type") from None
        if 0 in shape or shape[0] % block or math.prod(shape) * width // block > len(self.content):
            raise ValueError(f"tensor {name} cannot have the shape {list(shape)}")
        return shape, kind.name, math.prod(shape) * width // block

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _text(self, longest: int) -> str:
        length = self._number("<Q")
        if length > longest:
            raise ValueError(f"a text of {length} bytes")
        return self._bytes(length).decode("utf-8")

    def _bytes(self, count: int) -> bytes:
        if count > len(self.content) - self.at:
            raise ValueError("it ends inside its header")
        self.at += count
        return self.content[self.at - count : self.at]


def _alignment(values: dict[str, Any]) -> int:
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment}")
    return alignment


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
