"""A GGUF file opened through llama.cpp: token ids and logits, without sampling or chat.

A thin layer on the C API that llama-cpp-python binds. A bad file can abort the process that opens
it, so files nobody has proven are opened in a child process (quantize/worker.py).
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from appliance.core.errors import ConfigWrong, EngineFailed, ModelRejected, NotFound
from appliance.core.reading import local
from appliance.models.wording import pattern_of, reword
from appliance.models.wordpiece import normalizer_of

_UNKNOWN, _CONTROL, _USER_DEFINED = 1 << 0, 1 << 3, 1 << 4
_MAX_BATCH, _MAX_UBATCH = 2048, 512
_SMALL = 64_000_000
_said: deque[str] = deque(maxlen=200)
_ears: list[list[str]] = []


@cache
def library() -> Any:
    """The module `llama_cpp.llama_cpp`, its log kept in memory instead of on stderr.

    Raises:
        EngineFailed: llama-cpp-python is not installed, or its library does not load.
    """
    # llama-cpp-python imports diskcache only for a disk cache that we never use, and its known
    # hole (CVE-2025-69872) has no fix: an empty module keeps it out of the process.
    sys.modules.setdefault("diskcache", types.ModuleType("diskcache"))
    try:
        from llama_cpp import llama_cpp as lib
    except (ImportError, OSError, RuntimeError) as problem:
        raise EngineFailed(
            f"llama.cpp cannot be loaded: {problem}.", "Install again with `make install`."
        ) from problem
    lib.llama_log_set(_KEEP_LOG, ctypes.c_void_p(0))
    lib.llama_backend_init()
    return lib


def _keep_log(level: int, text: bytes, data: Any) -> None:
    words = text.decode("utf-8", "replace")
    _said.append(words)
    for ear in _ears:
        ear.append(words)


_KEEP_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_keep_log)


def log_tail(lines: int = 3) -> str:
    """The last lines that llama.cpp logged, as one line of text."""
    return " | ".join(line for line in "".join(_said).splitlines()[-lines:] if line.strip(". "))


@contextmanager
def listening() -> Iterator[list[str]]:
    """Everything that llama.cpp logs in the block, in the pieces it comes in."""
    library()
    ear: list[str] = []
    _ears.append(ear)
    try:
        yield ear
    finally:
        _ears.remove(ear)


def physical_cores() -> int:
    """Cores this process may use, hyper-threads not counted."""
    return max(1, min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0))))


def default_threads(path: Path) -> int:
    """All physical cores, but one for a file of less than 64 MB.

    Threads wait for each other after every operation; those of a small model are so short that
    waiting on a busy machine costs up to 25 times the work (measured), and gains little on an idle one.
    """
    return 1 if path.stat().st_size < _SMALL else physical_cores()


class LlamaFile:
    """An open GGUF file. One thread at a time; `model`, `vocab` and `ctx` are the C pointers.

    `context` is the number of KV cells, shared by up to `sequences` sequences of one decode (one
    sequence may fill all of them). `exact` keeps the KV cache in F32 and turns flash attention
    off, for comparisons with another implementation. `vocab_only` loads no weights: `ctx` is None.
    `watch` (a ggml_backend_sched_eval_callback) sees every node of the graph as it is computed.
    `pooling` (a llama_pooling_type) makes it an embedder, one vector a sequence.
    `check` reads all weights and refuses those that are no numbers.

    Raises:
        NotFound: there is no such file.
        ModelRejected: llama.cpp does not load it.
        EngineFailed: it loads, but a context of this size cannot be made.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        context: int = 2048,
        sequences: int = 1,
        threads: int | None = None,
        vocab_only: bool = False,
        exact: bool = False,
        watch: Any = None,
        check: bool = False,
        pooling: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.model: Any = None
        self.ctx: Any = None
        self._adapters: dict[Path, Any] = {}
        self.context, self.sequences = context, sequences
        if not self.path.is_file():
            raise NotFound(f"There is no file {self.path}.", "See `cloister model list`.")
        self.threads = threads or default_threads(self.path)
        lib = library()
        _said.clear()
        params = lib.llama_model_default_params()
        params.vocab_only = vocab_only
        params.check_tensors = check
        self.model = lib.llama_model_load_from_file(os.fsencode(local(self.path)), params)
        if not self.model:
            raise ModelRejected(
                f"llama.cpp does not load {self.path.name}: {log_tail()}",
                "The file is damaged or of a kind this version does not know.",
            )
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.n_vocab: int = lib.llama_vocab_n_tokens(self.vocab)
        self.bos: int = lib.llama_vocab_bos(self.vocab)
        self.eos: int = lib.llama_vocab_eos(self.vocab)
        self.pad: int = lib.llama_vocab_pad(self.vocab)
        template = lib.llama_model_chat_template(self.model, None)
        self.chat_template: str | None = template.decode("utf-8", "replace") if template else None
        self.metadata = self._metadata()
        trained = self.metadata.get(f"{self.metadata.get('general.architecture')}.context_length", "0")
        self.n_context_train = int(trained) if trained.isdecimal() else 0
        self.normalizer = normalizer_of(self.metadata)
        self.space_prefix = self.metadata.get("cloister.space_prefix")
        self._patterns: dict[bool, re.Pattern[str] | None] = {}
        if not vocab_only:
            self._open_context(exact, watch, pooling)

    def _open_context(self, exact: bool, watch: Any, pooling: int | None) -> None:
        lib = library()
        params = lib.llama_context_default_params()
        params.n_ctx = self.context
        params.n_batch = min(self.context, _MAX_BATCH)
        params.n_ubatch = min(self.context, _MAX_UBATCH)
        params.n_seq_max = self.sequences
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = self.threads
        params.no_perf = True
        if watch is not None:
            params.cb_eval = self._watch = watch  # kept: C holds no reference
        if pooling is not None:
            params.embeddings, params.pooling_type = True, pooling
            params.n_batch = params.n_ubatch = self.context  # a vector needs its whole text in one step
        if exact:
            params.type_k = params.type_v = 0  # GGML_TYPE_F32
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.ctx = lib.llama_init_from_model(self.model, params)
        if not self.ctx:
            said = log_tail()
            self.close()
            raise EngineFailed(
                f"No context of {self.context} tokens for {self.path.name}: {said}",
                "Use a smaller context; memory may be short.",
            )

    def use_adapters(self, scales: Mapping[Path, float]) -> None:
        """Compute with these LoRA GGUF files at these scales from now on, and no others; {}: the base alone.

        A file is read once and kept until `close`.

        Raises:
            ModelRejected: llama.cpp does not take one for this model.
        """
        lib = library()
        for path in scales:
            if path not in self._adapters:
                _said.clear()
                found = lib.llama_adapter_lora_init(self.model, os.fsencode(local(path)))
                if not found:
                    raise ModelRejected(
                        f"llama.cpp does not take the adapter {path.name}: {log_tail()}",
                        "Use an adapter that was made for this base.",
                    )
                self._adapters[path] = found
        count = len(scales)
        pointers = (lib.llama_adapter_lora_p_ctypes * count)(*(self._adapters[path] for path in scales))
        if lib.llama_set_adapters_lora(self.ctx, pointers, count, (ctypes.c_float * count)(*scales.values())):
            raise ModelRejected(f"llama.cpp does not use the adapters: {log_tail()}", "Use one at a time.")

    def close(self) -> None:
        """Free the context, the model and its adapters; a second call does nothing."""
        lib = library()
        if self.ctx:
            lib.llama_free(self.ctx)
        if self.model:
            lib.llama_model_free(self.model)
        self.ctx = self.model = self.vocab = None
        self._adapters = {}  # freed with the model

    def __enter__(self) -> LlamaFile:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def tokenize(self, text: str, special: bool, *, reworded: bool = False) -> list[int]:
        """Token ids of `text`, no BOS added. Only `special` text may spell special tokens.

        The tokenizer's Unicode normalisation and its first space are made here, since llama.cpp leaves
        them out, unless `text` comes `reworded` already.
        """
        if not reworded:
            specials = self._pattern(special) if self.space_prefix else None
            text = reword(text, normalizer=self.normalizer, space=self.space_prefix, specials=specials)
        content = text.encode("utf-8", "replace")
        room = len(content) + 8
        while True:
            ids = (ctypes.c_int32 * room)()
            count = library().llama_tokenize(self.vocab, content, len(content), ids, room, False, special)
            if count >= 0:
                return list(ids[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes that `token` stands for; special tokens give their text."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = library().llama_token_to_piece(self.vocab, token, buffer, room, 0, True)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def token_text(self, token: int) -> str:
        """The entry of the vocabulary as it stands in the file (byte-level alphabet and all)."""
        text: bytes = library().llama_vocab_get_text(self.vocab, token)
        return text.decode("utf-8", "replace")

    def is_end(self, token: int) -> bool:
        """Whether `token` ends a generation (EOS, end of turn)."""
        return bool(library().llama_vocab_is_eog(self.vocab, token))

    def special_tokens(self) -> dict[str, int]:
        """Text -> id of the control and user-defined tokens, which text must not be able to forge."""
        wanted = self._with(_CONTROL | _USER_DEFINED)
        return {self.piece(token).decode("utf-8", "replace"): token for token in wanted}

    def kept_as_text(self) -> list[str]:
        """Special tokens that stay text where special tokens are not read: control and unknown ones."""
        return [self.token_text(token) for token in self._with(_UNKNOWN | _CONTROL)]

    def _with(self, attributes: int) -> list[int]:
        """The tokens that have one of llama.cpp's `attributes`."""
        attr, vocab = library().llama_vocab_get_attr, self.vocab
        return [token for token in range(self.n_vocab) if attr(vocab, token) & attributes]

    def _pattern(self, special: bool) -> re.Pattern[str] | None:
        """Matches what llama.cpp reads as one token before it splits text."""
        if special not in self._patterns:
            read = self._with(_USER_DEFINED | (_UNKNOWN | _CONTROL if special else 0))
            self._patterns[special] = pattern_of(self.token_text(token) for token in read)
        return self._patterns[special]

    def logits(self, prompts: Sequence[Sequence[int]], keep: Sequence[int] | None = None) -> list[np.ndarray]:
        """Logits of the last `keep[i]` positions of each prompt (None: 1 each).

        Returns, for each prompt, float32 [keep[i], n_vocab]. Prompts are packed into as few decodes
        as the context and its sequences allow; the memory is cleared before and after.

        Raises:
            ConfigWrong: a prompt is empty, longer than the context, or shorter than its `keep`.
            EngineFailed: llama.cpp did not compute it.
        """
        kept = [1] * len(prompts) if keep is None else list(keep)
        for prompt, count in zip(prompts, kept, strict=True):
            if not 0 <= count <= len(prompt) or not 0 < len(prompt) <= self.context:
                raise ConfigWrong(
                    f"A prompt of {len(prompt)} tokens does not fit a context of {self.context}.",
                    "Shorten the text or open the model with a larger context.",
                )
        found: list[np.ndarray] = []
        for group in self._groups([len(prompt) for prompt in prompts]):
            found += self._decode([prompts[i] for i in group], [kept[i] for i in group])
        return found

    def _groups(self, lengths: Sequence[int]) -> Iterator[range]:
        """Runs of prompts that fit into the context together."""
        start = used = 0
        for i, length in enumerate(lengths):
            if used + length > self.context or i - start == self.sequences:
                yield range(start, i)
                start, used = i, 0
            used += length
        if start < len(lengths):
            yield range(start, len(lengths))

    def _decode(self, prompts: Sequence[Sequence[int]], keep: Sequence[int]) -> list[np.ndarray]:
        lib = library()
        memory = lib.llama_get_memory(self.ctx)
        lengths = [len(prompt) for prompt in prompts]
        tokens = np.fromiter((t for prompt in prompts for t in prompt), np.int32, sum(lengths))
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        owners = np.repeat(np.arange(len(prompts), dtype=np.int32), lengths)
        left = np.repeat(np.array(lengths, np.int32), lengths) - positions
        wanted = (left <= np.repeat(np.array(keep, np.int32), lengths)).astype(np.int8)
        rows = np.empty((int(wanted.sum()), self.n_vocab), np.float32)
        filled = 0
        lib.llama_memory_clear(memory, True)
        try:
            step = min(self.context, _MAX_BATCH)
            for at in range(0, len(tokens), step):
                part = slice(at, at + step)
                self.run(tokens[part], positions[part], owners[part], wanted[part])
                count = int(wanted[part].sum())
                if count:
                    out = np.ctypeslib.as_array(lib.llama_get_logits(self.ctx), (count, self.n_vocab))
                    rows[filled : filled + count] = out
                    filled += count
        finally:
            lib.llama_memory_clear(memory, True)
        return np.split(rows, np.cumsum(keep)[:-1])

    def run(self, tokens: np.ndarray, positions: np.ndarray, owners: np.ndarray, wanted: np.ndarray) -> None:
        """One llama_decode; token j stands at `positions[j]` of sequence `owners[j]`.

        Raises:
            EngineFailed: llama.cpp did not compute it.
        """
        lib = library()
        count = len(tokens)
        ones = np.ones(count, np.int32)
        owners = np.ascontiguousarray(owners)
        pointers = (owners.ctypes.data + owners.itemsize * np.arange(count)).astype(np.uintp)
        int32 = ctypes.POINTER(ctypes.c_int32)
        batch = lib.llama_batch(
            n_tokens=count,
            token=np.ascontiguousarray(tokens).ctypes.data_as(int32),
            pos=np.ascontiguousarray(positions).ctypes.data_as(int32),
            n_seq_id=ones.ctypes.data_as(int32),
            seq_id=pointers.ctypes.data_as(ctypes.POINTER(int32)),
            logits=np.ascontiguousarray(wanted).ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        code = lib.llama_decode(self.ctx, batch)
        if code != 0:
            raise EngineFailed(
                f"llama.cpp could not compute a batch of {count} tokens (code {code}): {log_tail()}",
                "Memory may be short; use a smaller context.",
            )

    def logits_of(self, row: int) -> np.ndarray:
        """The logits of row `row` of the last `run`, float32 [n_vocab]; valid until the next one."""
        return np.ctypeslib.as_array(library().llama_get_logits_ith(self.ctx, row), (self.n_vocab,))

    def _metadata(self) -> dict[str, str]:
        lib = library()
        model = self.model

        def read(get: Any, i: int) -> str:
            room = 256
            while True:
                buffer = ctypes.create_string_buffer(room)
                count = get(model, i, buffer, room)
                if count < room:
                    return buffer.raw[: max(count, 0)].decode("utf-8", "replace")
                room = count + 1

        names, values = lib.llama_model_meta_key_by_index, lib.llama_model_meta_val_str_by_index
        return {read(names, i): read(values, i) for i in range(lib.llama_model_meta_count(model))}
