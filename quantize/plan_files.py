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
from appliance.core.home import Home
from quantize import worker
from quantize.header import read_gguf
from quantize.kernel import plan_types
from quantize.origin import open_origin
from quantize.outline import outline, padded
from quantize.recipe import TYPES, check_matches, recipe_from
from quantize.serving import CONTEXT, SLOTS, memory

SPARE = 0.2  # of a device's memory is left to its system
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def plan_files(
    home: Home,
    name: str,
    types: Sequence[str] = TYPES,
    *,
    spec: dict[str, Any] | None = None,
    context: int = CONTEXT,
    slots: int = SLOTS,
    device: int | None = None,
) -> dict[str, Any]:
    """The files that quantising `name` to `types` would give, F16 first.

    `spec` as of the job (tensor_types, imatrix, ...); `device` is another machine's memory in bytes.
    Sizes are exact; memory is about what llama.cpp takes (file, KV cache, buffers), without the
    gateway beside it.

    Raises:
        NotFound, ConfigWrong, ModelRejected: as `quantize_model`.
        EngineFailed: llama.cpp cannot plan this model.
    """
    origin = open_origin(home, name)
    recipes = [recipe_from(kind, spec or {}) for kind in dict.fromkeys(["F16", *types])]
    here = psutil.virtual_memory()
    with tempfile.TemporaryDirectory(prefix="cloister-", dir=home.path) as folder:
        file = Path(folder) / "outline.gguf"
        whole = outline(origin, file)
        header = read_gguf(file)
        doing = f"Planning {name}"
        buffers = worker.run(memory, doing=doing, timeout=300, file=str(file), context=context, slots=slots)
        rows = []
        for recipe in recipes:
            check_matches(recipe, list(header.tensors))
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


def tensor_bytes(kind: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor stored as `kind`, whose rows are whole blocks."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return math.prod(shape) // block * size


def read_bytes(text: str) -> int:
    """Bytes from texts such as 4GB, 512 MiB or 8G; 4GB is 4 * 10^9, as on a data sheet.

    Raises:
        ConfigWrong: not of that form.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", text.upper())
    if found is None:
        raise ConfigWrong(f"{text} is no amount of memory.", "Give a number with its unit, such as 4GB.")
    number, unit, binary = found.groups()
    scale = 1024 ** " KMGT".index(unit) if binary and unit else _UNITS[unit]
    return int(float(number) * scale)
