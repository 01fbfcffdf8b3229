"""The arrays that a federation trains: their names and shapes, in one order for every site.

What is averaged is always the same list of float32 arrays (the LoRA matrices of the adapter), sorted by name.
Whoever reads an update takes names, shapes and lengths from here and never from the update.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ConfigWrong
from appliance.security import canonical

Array = NDArray[np.float32]
Arrays = Mapping[str, Array]

_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")
_MOST_ARRAYS, _MOST_VALUES = 10_000, 1 << 31


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names and shapes, sorted by name."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def values(self) -> int:
        """How many numbers they hold together."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    def pieces(self) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        """(name, shape, start, end) of each array in the flat vector of all."""
        start = 0
        for name, shape in self.shapes:
            end = start + math.prod(shape)
            yield name, shape, start, end
            start = end

    def sha256(self) -> str:
        """Hex digest of the canonical list of names and shapes."""
        return hashlib.sha256(
            canonical.encode([[name, list(shape)] for name, shape in self.shapes])
        ).hexdigest()


def layout_of(arrays: Mapping[str, tuple[int, ...]]) -> Layout:
    """The layout of arrays with these shapes.

    Raises:
        ConfigWrong: there is none, or too many, or one has a name or shape that no adapter has.
    """
    shapes = tuple(sorted((name, tuple(shape)) for name, shape in arrays.items()))
    sound = all(
        _NAME.fullmatch(name) and 1 <= len(shape) <= 4 and all(side >= 1 for side in shape)
        for name, shape in shapes
    )
    made = Layout(shapes=shapes)
    if not sound or not 1 <= len(shapes) <= _MOST_ARRAYS or made.values > _MOST_VALUES:
        raise ConfigWrong(
            "These arrays are no adapter's.", "Train with LoRA; a federation averages adapters."
        )
    return made


def flat(layout: Layout, arrays: Arrays) -> Array:
    """All arrays as one vector, in the layout's order.

    Raises:
        ValueError: an array is missing, or of another shape.
    """
    joined = np.empty(layout.values, dtype=np.float32)
    if set(arrays) != {name for name, _ in layout.shapes}:
        raise ValueError("other arrays")
    for name, shape, start, end in layout.pieces():
        if tuple(arrays[name].shape) != shape:
            raise ValueError(f"{name} has another shape")
        joined[start:end] = arrays[name].reshape(-1)
    return joined


def parted(layout: Layout, vector: Array) -> dict[str, Array]:
    """The arrays of one vector: views, not copies."""
    return {name: vector[start:end].reshape(shape) for name, shape, start, end in layout.pieces()}


def vector_sha256(layout: Layout, vector: Array) -> str:
    """Hex digest that names a state of the adapter: its layout and the little-endian float32 values."""
    digest = hashlib.sha256(bytes.fromhex(layout.sha256()))
    digest.update(np.ascontiguousarray(vector, dtype="<f4").data)
    return digest.hexdigest()
