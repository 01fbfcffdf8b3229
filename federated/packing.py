"""How a vector of float32 travels: whole (f32), halved (f16), or as bytes with a scale per block (i8).

i8 is 1.016 bytes a value: one float32 scale for all, a float16 share of it for each 128 values, and every
value the nearest of -127..127 times that. What packing loses is kept where the vector was made and added to
the next one (error feedback; Seide et al. 2014, Karimireddy et al. 2019), so that rounding does not add up
over the rounds. Packing follows the noise of a private run and reads no record: it costs no privacy.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from federated.layout import Array

Packing = Literal["f32", "f16", "i8"]
PACKINGS: tuple[Packing, ...] = ("f32", "f16", "i8")
BLOCK = 128  # values that share a scale
_LARGEST, _HEAD = 127, 4
_WIDTH = {"f32": 4, "f16": 2}
_BLOCKS = np.dtype([("share", "<f2"), ("levels", "i1", (BLOCK,))])


def packed_size(values: int, packing: Packing) -> int:
    """Bytes of `values` numbers; with i8 the last block is filled up."""
    if packing == "i8":
        return _HEAD + _BLOCKS.itemsize * -(-values // BLOCK)
    return values * _WIDTH[packing]


def part(packing: Packing, start: int, end: int) -> tuple[int, int]:
    """Which bytes hold the values `start` (a multiple of BLOCK) to `end`, after the head of i8."""
    if packing == "i8":
        return _HEAD + _BLOCKS.itemsize * (start // BLOCK), _HEAD + _BLOCKS.itemsize * -(-end // BLOCK)
    return start * _WIDTH[packing], end * _WIDTH[packing]


def pack(vector: Array, packing: Packing) -> bytes:
    """The bytes of a finite vector.

    Raises:
        ValueError: a value is not finite, or too large for the packing.
    """
    if not np.isfinite(vector).all():
        raise ValueError("not finite")
    if packing == "f32":
        return vector.astype("<f4").tobytes()
    if packing == "f16":
        with np.errstate(over="ignore"):
            halved = vector.astype("<f2")
        if not np.isfinite(halved).all():
            raise ValueError("too large for float16")
        return halved.tobytes()
    wide = np.zeros((-(-vector.size // BLOCK), BLOCK), dtype=np.float32)
    wide.reshape(-1)[: vector.size] = vector
    largest = np.abs(wide).max(axis=1)
    whole = np.float32(largest.max() / _LARGEST)
    blocks = np.empty(len(wide), dtype=_BLOCKS)
    blocks["share"] = largest / (_LARGEST * whole) if whole else 0
    scales = (blocks["share"].astype(np.float32) * whole)[:, None]
    levels = np.rint(np.divide(wide, scales, out=np.zeros_like(wide), where=scales > 0))
    blocks["levels"] = np.clip(levels, -_LARGEST, _LARGEST)
    return b"".join((whole.astype("<f4").tobytes(), blocks.tobytes()))


def unpack(content: bytes | memoryview, values: int, packing: Packing) -> Array:
    """The `values` numbers that `content` holds.

    They can be infinite or no numbers where the sender wrote such: the gate looks.

    Raises:
        ValueError: `content` has another length.
    """
    if len(content) != packed_size(values, packing):
        raise ValueError("another length")
    return unpack_part(content[:_HEAD], content[slice(*part(packing, 0, values))], values, packing)


def unpack_part(
    head: bytes | memoryview, content: bytes | memoryview, values: int, packing: Packing
) -> Array:
    """The numbers of the bytes `part` names; `head` is the first 4 bytes of the whole."""
    if packing != "i8":
        return np.frombuffer(content, "<f4" if packing == "f32" else "<f2", values).astype(np.float32)
    blocks = np.frombuffer(content, _BLOCKS)
    with np.errstate(invalid="ignore", over="ignore"):
        scales = blocks["share"].astype(np.float32) * np.frombuffer(head, "<f4", 1)
        unpacked: Array = (blocks["levels"] * scales[:, None]).reshape(-1)[:values]
    return unpacked


def with_feedback(vector: Array, left: Array | None, packing: Packing, bound: float) -> tuple[bytes, Array]:
    """`vector` plus what earlier rounds left, clipped to the norm `bound` and packed, and what is left now.

    What is unpacked again has a norm of at most `bound`: rounding is clipped too. What clipping takes away is
    gone; only what rounding took is left for the next round.

    Raises:
        ValueError: see `pack`; or `left` is of another length.
    """
    if left is not None and left.shape != vector.shape:
        raise ValueError("another length")
    wanted = vector if left is None else vector + left
    room = bound
    for tried in range(16):
        clipped = wanted * np.float32(min(1.0, room / max(norm(wanted), 1e-30)))
        content = pack(clipped, packing)
        sent = unpack(content, wanted.size, packing)
        if (found := norm(sent)) <= bound:
            return content, clipped - sent
        room *= bound / found * (1 - 1e-6 * 2**tried)
    raise ValueError("rounding does not fit the bound")


def norm(vector: Array) -> float:
    """The L2 norm, summed in float64."""
    return float(np.sqrt(np.sum(np.square(vector, dtype=np.float64))))
