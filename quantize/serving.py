"""What a file asks of the machine that serves it: memory and speed. Run in a child (worker.py).

The figures are those of `cloister serve` without options: `SLOTS` requests at a time, each with a
context of `CONTEXT` tokens or the model's own, if that is less.
"""

from __future__ import annotations

import os
import re
import time

import numpy as np

from appliance.core.errors import EngineFailed
from appliance.models.llama import LlamaFile, library, listening, log_tail

CONTEXT, SLOTS = 4096, 4  # as in appliance/serve/job.py
PROMPT, ANSWER = 128, 32  # tokens
MOST_SECONDS = 20.0
_BUFFER = re.compile(r"(compute|output) buffer size = *([\d.]+) MiB|(kv_cache): size = *([\d.]+) MiB")


def memory(file: str, context: int = CONTEXT, slots: int = SLOTS) -> dict[str, int]:
    """Bytes that llama.cpp takes besides the file itself: {"context", "slots", "kv", "compute"}.

    llama.cpp plans its buffers for the file and says how large they would be; nothing is loaded, so
    that `file` may be one without weights (convert.outline).

    Raises:
        EngineFailed: it cannot plan for this file.
    """
    lib = library()
    with listening() as said:
        params = lib.llama_model_default_params()
        params.no_alloc, params.load_mode = True, 0  # nothing mapped, as llama.cpp's own memory fit does
        model = lib.llama_model_load_from_file(os.fsencode(file), params)
        if not model:
            raise EngineFailed(f"llama.cpp cannot plan its memory: {log_tail()}", "See the log.")
        context = min(context, int(lib.llama_model_n_ctx_train(model)))
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.kv_unified = context * slots, slots, False
        ctx = lib.llama_init_from_model(model, settings)
        if not ctx:
            lib.llama_model_free(model)
            raise EngineFailed(f"llama.cpp cannot plan its memory: {log_tail()}", "See the log.")
        lib.llama_free(ctx)
        lib.llama_model_free(model)
    found: dict[str, float] = {}
    for buffer, size, cache, cells in _BUFFER.findall("".join(said)):
        found[buffer or cache] = found.get(buffer or cache, 0.0) + float(size or cells) * 2**20
    if not {"kv_cache", "compute"} <= found.keys():
        raise EngineFailed("llama.cpp did not say how much memory it needs.", "See the log.")
    compute = found["compute"] + found.get("output", 0.0)
    return {"context": context, "slots": slots, "kv": int(found["kv_cache"]), "compute": int(compute)}


def speed(file: str) -> dict[str, float]:
    """Tokens a second on this machine, one request alone: {"prompt", "answer"}."""
    with LlamaFile(file, context=PROMPT + ANSWER) as llama:
        size = min(PROMPT, llama.context - ANSWER)
        ids = np.arange(size, dtype=np.int32) % max(1, llama.n_vocab - 8) + 4
        _run(llama, ids[:16], 0)  # the first pass fetches the weights from the disk
        library().llama_memory_clear(library().llama_get_memory(llama.ctx), True)
        began = time.perf_counter()
        _run(llama, ids, 0)
        prompt = size / (time.perf_counter() - began)
        began, done = time.perf_counter(), 0
        while done < ANSWER and time.perf_counter() - began < MOST_SECONDS:
            _run(llama, ids[done : done + 1], size + done)
            done += 1
        return {"prompt": round(prompt, 1), "answer": round(done / (time.perf_counter() - began), 1)}


def _run(llama: LlamaFile, ids: np.ndarray, at: int) -> None:
    count = len(ids)
    wanted = np.zeros(count, np.int8)
    wanted[-1] = 1
    llama.run(ids, np.arange(at, at + count, dtype=np.int32), np.zeros(count, np.int32), wanted)
    library().llama_synchronize(llama.ctx)


def measure(file: str, context: int = CONTEXT, slots: int = SLOTS) -> dict[str, dict[str, float]]:
    """`memory` and `speed` of one file."""
    return {"memory": dict(memory(file, context, slots)), "speed": speed(file)}
