"""llama.cpp's quantiser."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from appliance.core.errors import EngineFailed
from appliance.models.llama import library, log_tail, physical_cores

# llama.cpp's enum llama_ftype
QUANTISED = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}


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
