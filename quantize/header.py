"""Reads a GGUF's header and checks it before any parser written in C sees the file.

Format (version 3, little-endian): magic, version, number of tensors, number of key-values, the
key-values, then per tensor its name, shape, type and offset, then the data at the next multiple of
`general.alignment` (32). Everything is bounded by the file's size and by the limits below; what the
header says is then held against itself (sound.py).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from appliance.core.errors import ModelRejected
from appliance.core.reading import open_reading, size_of
from quantize import sound
from quantize.sound import ARRAY, BOOL, STRING, Raw

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"}
_SCALARS |= {10: "<Q", 11: "<q", 12: "<d"}
_MOST_TENSORS, _MOST_VALUES = 100_000, 10_000
_LONGEST_NAME, _LONGEST_KEY, _LONGEST_TEXT = 63, 256, 32_000_000
_MOST_ITEMS = 4_000_000  # of all arrays together; Gemma's vocabulary has 1.4 million
_LARGEST_HEADER = 256_000_000
_LARGEST_ALIGNMENT = 1 << 16
_CHUNK = 1 << 20


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
    """Read and check the header of a GGUF file, model or adapter; nothing written in C sees it.

    Takes at most about 1 GB of memory and some seconds, whatever the file says.

    Raises:
        ModelRejected: anything out of bounds, unknown, doubled, misaligned, beyond the file or against
            the rest of the header; a chat template that is not allowed.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("no regular file")
        with open_reading(path) as stream:
            return _Reader(stream, size_of(path)).read()
    except FileNotFoundError as problem:
        raise ModelRejected(f"There is no file {path}.", "Check the path.") from problem
    except (ValueError, struct.error, OSError) as problem:
        raise ModelRejected(
            f"{path.name} is not a sound GGUF file: {problem}.",
            "Copy it again from its source, or get one made by a current llama.cpp.",
        ) from problem


class _Reader:
    """Reads as far as the header reaches, in chunks: mapping the file could end the process (SIGBUS)."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        self.content = bytearray()
        self.at = self.items = 0

    def read(self) -> Gguf:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not start with GGUF")
        if (version := self._number("<I")) != 3:
            raise ValueError(f"version {version}, not 3")
        tensor_count, value_count = self._number("<Q"), self._number("<Q")
        if tensor_count > _MOST_TENSORS or value_count > _MOST_VALUES:
            raise ValueError(f"{tensor_count} tensors and {value_count} values")
        raw = Raw(kinds={}, arrays={})
        values, arrays = self._values(value_count, raw)
        tensors, size = self._tensors(tensor_count, _alignment(values, raw))
        sound.check(values, raw, tensors)
        return Gguf(
            values=values,
            arrays=arrays,
            tensors=tensors,
            parameters=sum(math.prod(shape) for _, shape in tensors.values()),
            tensor_bytes=size,
        )

    def _values(self, count: int, raw: Raw) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
        values: dict[str, Any] = {}
        arrays: dict[str, tuple[int, str]] = {}
        for _ in range(count):
            key = self._text(_LONGEST_KEY)
            if not key or not key.isascii() or not key.isprintable():
                raise ValueError(f"key {key[:40]!r}")
            if key in raw.kinds:
                raise ValueError(f"key {key} twice")
            kind = self._number("<I")
            if kind == ARRAY:
                start = self.at
                raw.kinds[key], held = self._array(key)
                if sound.wants(key):
                    raw.arrays[key] = held
                arrays[key] = (len(held), hashlib.sha256(self.content[start : self.at]).hexdigest())
            else:
                raw.kinds[key] = (kind,)
                values[key] = self._value(kind, key)
        return values, arrays

    def _value(self, kind: int, key: str) -> Any:
        if kind == STRING:
            return self._text(_LONGEST_TEXT)
        if kind not in _SCALARS:
            raise ValueError(f"{key} has the unknown type {kind}")
        if kind == BOOL:
            if (said := self._number("<B")) > 1:
                raise ValueError(f"{key} is neither true nor false")
            return bool(said)
        return self._number(_SCALARS[kind])

    def _array(self, key: str) -> tuple[tuple[int, int], Any]:
        """Its kinds, and its items: a list of bytes or an array of numbers."""
        kind, count = self._number("<I"), self._number("<Q")
        self.items += count
        if self.items > _MOST_ITEMS or kind not in (*_SCALARS, STRING):
            raise ValueError(f"{key} holds {count} items of type {kind}")
        if kind != STRING:
            form = _SCALARS[kind]
            return (ARRAY, kind), np.frombuffer(self._bytes(count * struct.calcsize(form)), form)
        return (ARRAY, kind), [self._bytes(self._number("<Q")) for _ in range(count)]

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
        if tensors and data + expected - self.size >= alignment:
            raise ValueError(f"it ends {data + expected - self.size} bytes early")
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
        if 0 in shape or shape[0] % block or math.prod(shape) * width // block > self.size:
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
        end = self.at + count
        if end > self.size:
            raise ValueError("it ends inside its header")
        if end > _LARGEST_HEADER:
            raise ValueError(f"its header is larger than {_LARGEST_HEADER} bytes")
        if end > len(self.content):
            self.content += self.stream.read(max(_CHUNK, end - len(self.content)))
            if end > len(self.content):
                raise ValueError("it ends inside its header")
        self.at = end
        return bytes(self.content[end - count : end])


def _alignment(values: dict[str, Any], raw: Raw) -> int:
    alignment = values.get("general.alignment", 32)
    kind = raw.kinds.get("general.alignment", (sound.UINT32,))
    low, high = 8, _LARGEST_ALIGNMENT
    if kind != (sound.UINT32,) or not low <= alignment <= high or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment}")
    return int(alignment)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
