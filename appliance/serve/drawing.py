"""The next token of an answer, drawn by llama.cpp's samplers; under a JSON schema by its grammar."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from appliance.core.errors import EngineFailed
from appliance.models.llama import LlamaFile, library
from appliance.serve.engine import Settings
from appliance.serve.grammars import check_schema, schema_refused

_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp draws one
_TOKENS = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Drawing:
    """The samplers of one answer from `file`, the same as llama-server's with top_p and temperature.

    Raises:
        ConfigWrong: no grammar can be made of the schema.
    """

    def __init__(self, file: LlamaFile, settings: Settings) -> None:
        lib = library()
        self._file = file
        self._grammar = None if settings.schema is None else _grammar(file, settings.schema)
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        seed = _RANDOM_SEED if settings.seed is None else settings.seed
        for part in (
            lib.llama_sampler_init_top_p(settings.top_p, 0),
            lib.llama_sampler_init_temp_ext(settings.temperature, 0.0, 1.0),
            lib.llama_sampler_init_dist(seed),
        ):
            lib.llama_sampler_chain_add(self._chain, part)

    def next(self, row: int) -> int:
        """The token after row `row` of the last decode.

        Raises:
            EngineFailed: no token of the model fits the grammar.
        """
        lib = library()
        if self._grammar is None:
            return int(lib.llama_sampler_sample(self._chain, self._file.ctx, row))
        logits = self._file.logits_of(row)
        tokens = np.zeros(len(logits), _TOKENS)
        tokens["id"], tokens["logit"] = np.arange(len(logits)), logits
        data = ctypes.cast(tokens.ctypes.data, ctypes.POINTER(lib.llama_token_data))
        found = lib.llama_token_data_array(data=data, size=len(tokens), selected=-1, sorted=False)
        lib.llama_sampler_apply(self._grammar, ctypes.byref(found))
        # A grammar that is given a token it does not allow throws, which would end this process.
        if not np.isfinite(tokens["logit"]).any():
            raise EngineFailed(
                "The model has no token that goes on in the JSON schema.", "Use a simpler schema."
            )
        lib.llama_sampler_apply(self._chain, ctypes.byref(found))
        token = int(found.data[found.selected].id)
        lib.llama_sampler_accept(self._grammar, token)
        lib.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Free the samplers."""
        for sampler in filter(None, (self._grammar, self._chain)):
            library().llama_sampler_free(sampler)
        self._grammar = self._chain = None


def _grammar(file: LlamaFile, schema: Mapping[str, Any]) -> Any:
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    check_schema(schema)
    try:
        text = json_schema_to_gbnf(json.dumps(schema))
    except Exception as problem:  # asserts, KeyError, RecursionError: whatever the schema breaks in it
        raise schema_refused() from problem
    with _silent():
        sampler = library().llama_sampler_init_grammar(file.vocab, text.encode(), b"root")
    if not sampler:
        raise schema_refused()
    return sampler


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without stderr: there llama.cpp prints a grammar that it does not take, and it is a user's."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
