"""GGUF files that someone else made: header first, then a trial in a child process with limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.core.errors import ModelRejected
from appliance.models.task import KINDS, task_from
from quantize import worker
from quantize.header import read_gguf
from quantize.kernel import TYPE_NAMES, try_adapter, try_embedder, try_file
from quantize.sound_encoder import ENCODERS

_PATIENCE, _SPEED = 120, 20e6  # seconds, and bytes a second of a slow disk and one core
_LONGEST_TASK = 100_000  # bytes; it goes into the registry
_MEMORY = 4_000_000_000  # of Python, libraries and a small context; the file's own bytes come on top


def check_gguf(path: Path) -> dict[str, Any]:
    """Check a GGUF that someone else made: its header here, then a trial in a child process.

    Returns facts for its registry entry. It is sound and can be served; nothing proves what it is. A
    file with a pooling and without a chat template is an embedding model (`embeds`: its width), and so is
    every BERT.

    Raises:
        ModelRejected: the header is unsound, it has no usable chat template, or it is not a model.
        EngineFailed: llama.cpp crashed or hung on it.
    """
    header = read_gguf(path)
    if header.values.get("general.type") == "adapter":
        raise ModelRejected(f"{path.name} is an adapter, not a model.", "Import the base that it belongs to.")
    arch = header.values["general.architecture"]
    embeds = is_embedder(header.values)
    seen = worker.run(
        try_embedder if embeds else try_file,
        doing=f"Opening {path.name} in llama.cpp",
        **_limits(path),
        file=str(path),
    )
    return {
        "type": TYPE_NAMES.get(header.values.get("general.file_type", -1), "other"),
        "architecture": arch,
        "parameters": header.parameters,
        "bits_per_weight": round(header.bits_per_weight, 3),
        "histogram": header.histogram,
        "context": seen["context"],
        "task": _task(header.values.get("cloister.task")),
        "privacy": None,
        "proof": None,
        **({"embeds": seen["embeds"]} if embeds else {}),
    }


def is_embedder(values: Mapping[str, Any]) -> bool:
    """Whether the GGUF with these key-values turns texts into vectors and writes none."""
    arch = values["general.architecture"]
    pooled = f"{arch}.pooling_type" in values and "tokenizer.chat_template" not in values
    return arch in ENCODERS or pooled


def check_adapter_gguf(path: Path, base: Path) -> None:
    """Check an adapter GGUF against the model `base`: its header here, then with the base in a child.

    Raises:
        ModelRejected: the header is unsound, or the adapter is not one of this base.
        EngineFailed: llama.cpp crashed or hung on it.
    """
    header, under = read_gguf(path), read_gguf(base)
    arch = header.values["general.architecture"]
    if header.values.get("general.type") != "adapter" or arch != under.values["general.architecture"]:
        raise ModelRejected(f"{path.name} is no adapter of {base.name}.", "Choose the base it was made from.")
    worker.run(
        try_adapter,
        doing=f"Opening {path.name} in llama.cpp",
        **_limits(path, base),
        file=str(base),
        adapter=str(path),
    )


def _limits(*paths: Path) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in paths)
    return {"timeout": _PATIENCE + size / _SPEED, "memory": _MEMORY + 3 * size}


def _task(text: object) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        task = task_from(json.loads(str(text)))
        parts = (task.kind, task.prompt, *task.labels)
        if task.kind not in KINDS or not all(isinstance(part, str) for part in parts):
            raise ValueError("not a task")
        if sum(len(part.encode()) for part in parts) > _LONGEST_TASK:
            raise ValueError("too long")
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise ModelRejected(
            "The file's cloister.task cannot be read.", "Export the model again where it was made."
        ) from problem
    return task.as_dict()
