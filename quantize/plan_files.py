"""What quantising a model would give: types, sizes, memory, and whether a device can serve it.

Nothing is converted, started or entered. llama.cpp itself says which type each tensor would get and
how large its buffers would be, from an outline of the file; the size then follows exactly.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from appliance.core.errors import ConfigWrong
from appliance.core.files import temporary_place
from appliance.core.home import Home
from quantize import worker
from quantize.header import read_gguf
from quantize.kernel import plan_types
from quantize.origin import open_origin
from quantize.outline import outline, padded
from quantize.overrides import check_overrides
from quantize.recipe import TYPES, recipe_from
from quantize.serving import CONTEXT, SLOTS, memory

SPARE = 0.2  # of a device's memory is left to its system
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def plan_files(
    home: Home,
    name: str,
    types: Sequence[str] = TYPES,
    *,
    spec: dict[str, Any] | None = None,
    context: int | None = None,
    slots: int = SLOTS,
    device: int | None = None,
) -> dict[str, Any]:
    """The files that quantising `name` to `types` would give, F16 first.

    `spec` as of the job (tensor_types, imatrix, ...); `device` is another machine's memory in bytes.
    `context` is tokens a request; None: as served, CONTEXT or the model's own length if that is less.
    Sizes are exact; memory is about what llama.cpp takes (file, KV cache, buffers), without the
    gateway beside it.

    Raises:
        NotFound, ConfigWrong, ModelRejected: as `quantize_model`; or a context beyond the model's own.
        EngineFailed: llama.cpp cannot plan this model.
    """
    origin = open_origin(home, name)
    _check_context(context, origin.plan.hyperparameters["context_length"], name)
    recipes = [recipe_from(kind, spec or {}) for kind in dict.fromkeys(["F16", *types])]
    here = psutil.virtual_memory()
    with tempfile.TemporaryDirectory(prefix="cloister-", dir=temporary_place(home.path)) as folder:
        file = Path(folder) / "outline.gguf"
        whole = outline(origin, file)
        header = read_gguf(file)
        doing = f"Planning {name}"
        buffers = worker.run(
            memory, doing=doing, timeout=300, file=str(file), context=context or CONTEXT, slots=slots
        )
        check_overrides(home, origin, recipes, file)
        rows = []
        for recipe in recipes:
            kinds = {tensor: kind for tensor, (kind, _) in header.tensors.items()}
            if recipe.kind != "F16":
                kinds = worker.run(
                    plan_types,
                    doing=doing,
                    timeout=300,
                    source=str(file),
                    kind=recipe.kind,
                    tensor_types=[list(pair) for pair in recipe.tensor_types],
                    output_type=recipe.output_type,
                    embedding_type=recipe.embedding_type,
                    matrix=recipe.matrix,
                )
            shapes = {tensor: shape for tensor, (_, shape) in header.tensors.items()}
            before = sum(padded(tensor_bytes(*held)) for held in header.tensors.values())
            data = {tensor: tensor_bytes(kinds[tensor], shape) for tensor, shape in shapes.items()}
            size = whole - before + sum(padded(part) for part in data.values())
            needed = size + buffers["kv"] + buffers["compute"]
            counted = Counter(kinds[tensor] for tensor, shape in shapes.items() if len(shape) > 1)
            row: dict[str, Any] = {
                "type": recipe.kind,
                "size": size,
                "bits_per_weight": round(8 * sum(data.values()) / header.parameters, 3),
                "histogram": dict(counted.most_common()),
                "memory": needed,
                "fits_here": needed <= here.available,
            }
            if device is not None:
                row["fits_device"] = needed <= device * (1 - SPARE)
            rows.append(row)
    return {
        "model": name,
        "parameters": header.parameters,
        "context": buffers["context"],
        "slots": slots,
        "kv_bytes": buffers["kv"],
        "compute_bytes": buffers["compute"],
        "memory_here": {"total": here.total, "available": here.available},
        "device_memory": device,
        "files": rows,
    }


def _check_context(context: int | None, longest: Any, name: str) -> None:
    if context is not None and not 1 <= context <= longest:
        raise ConfigWrong(
            f"{name} cannot be planned for a context of {context} tokens.",
            f"Give --context from 1 to {longest}, the most that this model reads.",
        )


def tensor_bytes(kind: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor stored as `kind`, whose rows are whole blocks."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return math.prod(shape) // block * size


def read_bytes(text: str) -> int:
    """Bytes from texts such as 4GB, 512 MiB or 8G; 4GB is 4 * 10^9, as on a data sheet.

    Raises:
        ConfigWrong: not of that form, no unit (nobody means 4 bytes by 4), or not between 1 MB and 1000 TB.
    """
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]?)(I?)(B?)\s*", text.upper())
    if found is None:
        raise ConfigWrong(f"{text} is no amount of memory.", "Give a number with its unit, such as 4GB.")
    number, unit, binary, mark = found.groups()
    if not unit and not mark:
        raise ConfigWrong(f"{text} names no unit of memory.", f"Give KB, MB, GB or TB, such as {number}GB.")
    scale = 1024 ** " KMGT".index(unit) if binary and unit else _UNITS[unit]
    size = int(float(number) * scale)
    if not 10**6 <= size <= 10**15:
        raise ConfigWrong(f"No device has {text} of memory.", "Give 1MB to 1000TB, such as 4GB.")
    return size
