"""A peft LoRA adapter as a GGUF of its own, for llama.cpp to put on a base while it serves.

llama.cpp computes W x + (alpha / r) B A x, with r taken from B (src/llama-adapter.h, get_scale), so
alpha is written as scale times r: with use_rslora that is peft's alpha times sqrt(r). Rows of B change
places where those of W do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from appliance.core.errors import ModelRejected
from appliance.core.files import replacing
from appliance.models.safetensors import Tensor
from quantize.convert import CONVERTER, clean_name, pair_halves
from quantize.layout import Plan
from quantize.lora import Adapter
from quantize.source import read_rows, to_float32
from quantize.stream import Stored, write_tensors


def write_adapter(
    adapter: Adapter, plan: Plan, target: Path, *, name: str, facts: Mapping[str, str] | None = None
) -> None:
    """Write `target`: the adapter's matrices in F32, for the GGUF of the base that `plan` describes.

    Memory is bounded by one matrix of the adapter. `facts` become string values under their own keys.

    Raises:
        ModelRejected: its scale is 0 (llama.cpp would take that for 1), or a weight is not a number.
    """
    if adapter.scale == 0:
        raise ModelRejected(
            "The adapter's lora_alpha is 0, so it does nothing.", "Train it with another --alpha."
        )
    with replacing(target) as draft:
        writer = GGUFWriter(draft, plan.arch)
        try:
            writer.add_string("general.type", "adapter")
            writer.add_string("general.name", clean_name(name))
            writer.add_string("adapter.type", "lora")
            writer.add_float32("adapter.lora.alpha", adapter.scale * adapter.rank)
            writer.add_uint32("cloister.converter", CONVERTER)
            for key, text in (facts or {}).items():
                writer.add_string(key, text)
            write_tensors(writer, list(_stored(adapter, plan)))
        finally:
            writer.close()


def _stored(adapter: Adapter, plan: Plan) -> Iterator[Stored]:
    for tensor in plan.tensors:
        if tensor.source in adapter.pairs:
            halves = zip(("lora_a", "lora_b"), adapter.pairs[tensor.source], (0, tensor.heads), strict=True)
            for suffix, half, heads in halves:
                chunks = partial(_chunk, half, heads)
                yield Stored(name=f"{tensor.name}.{suffix}", shape=half.shape, kind="F32", chunks=chunks)


def _chunk(half: Tensor, heads: int) -> Iterator[np.ndarray]:
    values = to_float32(read_rows(half), half.dtype)
    if not np.isfinite(values).all():
        raise ModelRejected(
            f"{half.name} of the adapter has a weight that is not a number.", "The training run diverged."
        )
    yield pair_halves(values, heads) if heads else values
