"""What llama.cpp does to whole files: quantise one, try one out. Run in a child (worker.py)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np

from appliance.core.errors import EngineFailed, ModelRejected
from appliance.models.llama import LlamaFile, library, log_tail, physical_cores
from appliance.models.prompt import render

# llama.cpp's enum llama_ftype
QUANTISED = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
TYPE_NAMES = {0: "F32", 1: "F16", 32: "BF16", 30: "IQ4_XS"} | {code: name for name, code in QUANTISED.items()}


def quantize_file(source: str, target: str, kind: str, threads: int | None = None) -> None:
    """Write `source` (F32, F16 or BF16) to `target` with the weights in `kind`.

    Leaves a partial `target` behind when it fails; call it in a child, on a draft.

    Raises:
        EngineFailed: llama.cpp returned an error.
    """
    lib = library()
    params = lib.llama_model_quantize_default_params()
    params.ftype = QUANTISED[kind]
    params.nthread = threads or physical_cores()
    code = lib.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if code != 0:
        raise EngineFailed(
            f"{Path(source).name} could not be quantised to {kind}: {log_tail()}", "See the log."
        )


def try_file(file: str) -> dict[str, int]:
    """Open `file`, render a chat, compute it: {"context": tokens it was trained for}.

    Raises:
        ModelRejected: any of that cannot be done.
    """
    with LlamaFile(file, context=512) as llama:
        if not llama.chat_template:
            raise ModelRejected(
                f"{Path(file).name} has no chat template.",
                "Use an instruct model, converted with its template.",
            )
        text = render(
            llama.chat_template,
            [{"role": "user", "content": "Hello."}],
            bos_token=llama.piece(llama.bos).decode("utf-8", "replace") if llama.bos >= 0 else "",
            eos_token=llama.piece(llama.eos).decode("utf-8", "replace") if llama.eos >= 0 else "",
        )
        ids = llama.tokenize(text, special=True)[:256]
        if not ids or not np.isfinite(llama.logits([ids])[0]).all():
            raise ModelRejected(f"{Path(file).name} does not compute.", "Its weights are damaged.")
        return {"context": llama.n_context_train}
