"""What llama.cpp does to whole files: quantise one, try one out. Run in a child (worker.py)."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from appliance.core.errors import EngineFailed, ModelRejected
from appliance.models.llama import LlamaFile, library, listening, physical_cores
from appliance.models.prompt import render
from quantize.imatrix import load_matrix
from quantize.recipe import QUANTISED, tensor_type_code

# llama.cpp's enum llama_ftype
TYPE_NAMES = {0: "F32", 1: "F16", 32: "BF16"} | {code: name for name, code in QUANTISED.items()}
_LINE = re.compile(r"^\[ *\d+/ *\d+\] +(\S+) +- \[.*?\], type = +(\w+), size = .*?(?:\((\w+)\))?$", re.M)

_HELLO = {"role": "user", "content": "Hello."}
_TRIED = ([_HELLO], [_HELLO, {"role": "assistant", "content": "Yes?"}, _HELLO])


def quantize_file(
    source: str,
    target: str,
    kind: str,
    threads: int | None = None,
    tensor_types: Sequence[Sequence[str]] = (),
    output_type: str = "",
    embedding_type: str = "",
    matrix: str = "",
) -> None:
    """Write `source` (F32, F16 or BF16) to `target` with the weights in `kind`.

    `tensor_types` as in Recipe; `matrix` is a file of imatrix.py. Leaves a partial `target` behind
    when it fails; call it in a child, on a draft.

    Raises:
        EngineFailed: llama.cpp returned an error.
    """
    with _parameters(kind, tensor_types, output_type, embedding_type, matrix) as params:
        params.nthread = threads or physical_cores()
        _call(source, target, kind, params)


def plan_types(
    source: str,
    kind: str,
    tensor_types: Sequence[Sequence[str]] = (),
    output_type: str = "",
    embedding_type: str = "",
    matrix: bool = False,
) -> dict[str, str]:
    """Name -> type of every tensor that `quantize_file` would write; nothing is written.

    `source` may be a file without its weights (convert.outline). `matrix`: there would be one,
    which changes some types.

    Raises:
        EngineFailed: llama.cpp returned an error.
    """
    lib = library()
    with _parameters(kind, tensor_types, output_type, embedding_type) as params, listening() as said:
        params.dry_run = True
        none = (lib.llama_model_imatrix_data * 2)()
        one = ctypes.c_float(1.0)
        none[0].name, none[0].data, none[0].size = b"none", ctypes.pointer(one), 1
        if matrix:
            params.imatrix = none
        code = lib.llama_model_quantize(os.fsencode(source), b"", ctypes.byref(params))
    text = "".join(said)
    if code != 0:
        raise EngineFailed(f"{kind} cannot be planned: {_reason(said)}", "See the log.")
    return {name: (new or old).upper() for name, old, new in _LINE.findall(text)}


@contextmanager
def _parameters(
    kind: str, tensor_types: Sequence[Sequence[str]], output_type: str, embedding_type: str, matrix: str = ""
) -> Iterator[Any]:
    """llama_model_quantize_params; what they point to lives as long as the block."""
    lib = library()
    params = lib.llama_model_quantize_default_params()
    params.ftype = QUANTISED[kind]
    if output_type:
        params.output_tensor_type = tensor_type_code(output_type)
    if embedding_type:
        params.token_embedding_type = tensor_type_code(embedding_type)
    if tensor_types:
        types = (lib.llama_model_tensor_override * (len(tensor_types) + 1))()  # the last one ends the list
        for place, (pattern, name) in enumerate(tensor_types):
            types[place].pattern, types[place].type = pattern.encode(), tensor_type_code(name)
        params.tt_overrides = types
    if matrix:
        found = load_matrix(Path(matrix))
        weights = (lib.llama_model_imatrix_data * (len(found.means) + 1))()
        for place, (name, means) in enumerate(found.means.items()):
            weights[place].name, weights[place].size = name.encode(), means.size
            weights[place].data = means.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = weights
        notes = _notes(found.dataset, len(found.means), found.chunks)
        params.kv_overrides = notes
    yield params


def _notes(dataset: str, entries: int, chunks: int) -> Any:
    """The key-values by which llama-quantize tells of a matrix, without its file's path."""
    lib = library()
    notes = (lib.llama_model_kv_override * 4)()
    notes[0].tag, notes[0].key = lib.LLAMA_KV_OVERRIDE_TYPE_STR, b"quantize.imatrix.dataset"
    # 128 bytes with the end; what is cut inside a character would be no UTF-8 in the file
    notes[0].value.val_str = dataset.encode()[:127].decode("utf-8", "ignore").encode()
    for place, key, value in ((1, b"entries_count", entries), (2, b"chunks_count", chunks)):
        notes[place].tag, notes[place].key = lib.LLAMA_KV_OVERRIDE_TYPE_INT, b"quantize.imatrix." + key
        notes[place].value.val_i64 = value
    return notes


def _call(source: str, target: str, kind: str, params: Any) -> None:
    with listening() as said:
        code = library().llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if code != 0:
        reason = _reason(said)
        raise EngineFailed(f"{Path(source).name} could not be quantised to {kind}: {reason}", "See the log.")


def _reason(said: Sequence[str]) -> str:
    """Why llama.cpp gave up, in its own words, with what its reader of files said before."""
    before, _, reason = "".join(said).rpartition("failed to quantize: ")
    readers = [line for line in before.splitlines() if line.startswith("gguf") and "failed" in line]
    return " | ".join([*readers[-1:], reason.strip()])[-500:]


def try_file(file: str) -> dict[str, int]:
    """Open `file`, check its weights, render chats, compute one: {"context": tokens it was trained for}.

    Raises:
        ModelRejected: any of that cannot be done.
    """
    with LlamaFile(file, context=512, check=True) as llama:
        if not llama.chat_template:
            raise ModelRejected(
                f"{Path(file).name} has no chat template.",
                "Use an instruct model, converted with its template.",
            )
        texts = [
            render(
                llama.chat_template,
                chat,
                bos_token=llama.piece(llama.bos).decode("utf-8", "replace") if llama.bos >= 0 else "",
                eos_token=llama.piece(llama.eos).decode("utf-8", "replace") if llama.eos >= 0 else "",
                pad_token=llama.piece(llama.pad).decode("utf-8", "replace") if llama.pad >= 0 else "",
            )
            for chat in _TRIED
        ]
        ids = llama.tokenize(texts[0], special=True)[:256]
        if not ids or not np.isfinite(llama.logits([ids])[0]).all():
            raise ModelRejected(f"{Path(file).name} does not compute.", "Its weights are damaged.")
        return {"context": llama.n_context_train}


def try_embedder(file: str) -> dict[str, int]:
    """Open `file` as an embedding model and embed a text: {"context", "embeds": numbers in a vector}.

    Raises:
        ModelRejected, EngineFailed: any of that cannot be done.
    """
    # Here, since the children that quantise need nothing of serving.
    from appliance.serve.documents.embedding import opened, vector_of

    with opened(Path(file), check=True) as (llama, form):
        vector = vector_of(llama, form, "Is there a bed free on ward 3?")
        if not np.isfinite(vector).all() or not vector.any():
            raise ModelRejected(f"{Path(file).name} does not compute.", "Its weights are damaged.")
        return {"context": llama.n_context_train, "embeds": len(vector)}


def try_adapter(file: str, adapter: str) -> None:
    """Compute with the adapter GGUF `adapter` on the model `file`.

    Raises:
        ModelRejected: the adapter does not load, does not belong to the model, or does not compute.
    """
    with LlamaFile(file, context=64) as llama:
        llama.use_adapters({Path(adapter): 1.0})
        if not np.isfinite(llama.logits([[0, 1, 2]])[0]).all():
            raise ModelRejected(f"{Path(adapter).name} does not compute.", "Its weights are damaged.")
