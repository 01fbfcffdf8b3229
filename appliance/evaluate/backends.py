"""Where logits come from: transformers (base, adapter) or llama.cpp (GGUF)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import EngineFailed, ModelRejected
from appliance.models.encoding import Encoder
from appliance.models.llama import LlamaFile, library, log_tail
from appliance.models.load import encoder_for, load_torch
from appliance.models.task import Task

_NEW_TOKENS = 64
_PROMPT_TOKENS = 256
_RUNS = 3
_PATIENCE = 20.0  # seconds
_LONGEST = 4096  # evaluation reads no longer prompts than this, whatever the model allows
_CELLS = 1024  # KV cells at least; larger contexts were no faster on a CPU
_SEQUENCES = 64
_UNTOLD = 512  # the context of a file that does not say


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Tokens a second: `prompt` when reading, `decode` when writing one stream greedily."""

    prompt: float
    decode: float
    threads: int


class TorchScorer:
    """A base, or an adapter on its base, through transformers. Right padding, no attention mask:
    with causal attention no real position sees the padding behind it.
    """

    def __init__(self, base: Path, adapter: Path | None = None) -> None:
        self._take(*load_torch(base, adapter), base)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, base: Path) -> TorchScorer:
        """A model that is loaded already, as it is now; `base` is the folder of its words."""
        made = cls.__new__(cls)
        made._take(model, tokenizer, base)
        return made

    def _take(self, model: Any, tokenizer: Any, base: Path) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._folder = base
        self.context = min(int(getattr(self._model.config, "max_position_embeddings", _UNTOLD)), _LONGEST)
        self.max_tokens = max(4096, self.context)
        self.n_vocab = int(self._model.config.vocab_size)

    def encoder(self, task: Task) -> Encoder:
        """See Scorer."""
        return encoder_for(self._tokenizer, self._folder, task, self.context)

    def logits(self, prompts_tokens: list[list[int]], keep: list[int]) -> list[NDArray[np.float32]]:
        """See Scorer. The output head runs only at positions that some row of the batch keeps."""
        import torch

        device = next(self._model.parameters()).device
        longest = max(len(tokens) for tokens in prompts_tokens)
        padded = [tokens + [0] * (longest - len(tokens)) for tokens in prompts_tokens]
        spans = [range(len(t) - k, len(t)) for t, k in zip(prompts_tokens, keep, strict=True)]
        wanted = sorted({at for span in spans for at in span})
        column = {at: number for number, at in enumerate(wanted)}
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor(padded, device=device),
                logits_to_keep=torch.tensor(wanted, device=device),
                use_cache=False,
            ).logits
            found = [out[row, [column[at] for at in span]] for row, span in enumerate(spans)]
            return [block.float().cpu().numpy() for block in found]

    def speed(self) -> Speed:
        """Measure with a KV cache, one stream, median of three runs."""
        import torch

        device = next(self._model.parameters()).device
        prompt = torch.tensor([_some_tokens(self.n_vocab, self.context)], device=device)

        def run() -> tuple[float, float]:
            start = time.perf_counter()
            out = self._model(input_ids=prompt, use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1:].argmax(-1)
            int(token)  # waits for the device
            middle = time.perf_counter()
            for _ in range(_NEW_TOKENS):
                out = self._model(input_ids=token, cache=out.cache, use_cache=True)
                token = out.logits[:, -1:].argmax(-1)
                int(token)
            return middle - start, time.perf_counter() - middle

        with torch.inference_mode():
            return _median_speed(_repeated(run), prompt.shape[1], torch.get_num_threads())

    def close(self) -> None:
        """Let the memory go."""
        self._model = self._tokenizer = None


class GgufScorer:
    """A GGUF file through llama.cpp, the way it is served.

    The context is only as large as the prompts that come, so that a small machine can evaluate.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._path, self._threads = path, threads
        self._file: LlamaFile | None = None
        self._head = LlamaFile(path, vocab_only=True)
        if self._head.chat_template is None:
            self._head.close()
            raise ModelRejected(
                f"{path.name} has no chat template.", "Quantise it again with `cloister quantize`."
            )
        self.context = min(self._head.n_context_train or _UNTOLD, _LONGEST)
        self.max_tokens = _CELLS
        self.n_vocab = self._head.n_vocab

    def encoder(self, task: Task) -> Encoder:
        """See Scorer."""
        head = self._head
        return Encoder(
            tokenize=lambda text: head.tokenize(text, special=True),
            template=head.chat_template or "",
            bos_token=head.piece(head.bos).decode() if head.bos >= 0 else "",
            eos_token=head.piece(head.eos).decode() if head.eos >= 0 else "",
            eos=head.eos,
            task=task,
            limit=self.context,
            pad_token=head.piece(head.pad).decode() if head.pad >= 0 else "",
        )

    def logits(self, prompts_tokens: list[list[int]], keep: list[int]) -> list[NDArray[np.float32]]:
        """See Scorer."""
        return self._opened(max(len(tokens) for tokens in prompts_tokens)).logits(prompts_tokens, keep)

    def _opened(self, longest: int) -> LlamaFile:
        """The file with a context that holds `longest` tokens; opened anew when that grows."""
        if self._file is None or self._file.context < longest:
            if self._file is not None:
                self._file.close()
            cells = min(max(_CELLS, 1 << (longest - 1).bit_length()), max(self.context, _CELLS))
            self._file = LlamaFile(self._path, context=cells, sequences=_SEQUENCES, threads=self._threads)
        return self._file

    def speed(self) -> Speed:
        """Measure with a KV cache, one stream, median of three runs."""
        prompt = _some_tokens(self.n_vocab, self.context)
        lib, file = library(), self._opened(len(prompt) + _NEW_TOKENS)

        def decode(tokens: Sequence[int]) -> int:
            ids = (lib.llama_token * len(tokens))(*tokens)
            if lib.llama_decode(file.ctx, lib.llama_batch_get_one(ids, len(tokens))) != 0:
                raise EngineFailed(f"llama.cpp could not compute: {log_tail()}", "Memory may be short.")
            last = np.ctypeslib.as_array(lib.llama_get_logits_ith(file.ctx, -1), (self.n_vocab,))
            return int(last.argmax())

        def run() -> tuple[float, float]:
            lib.llama_memory_clear(lib.llama_get_memory(file.ctx), True)
            start = time.perf_counter()
            token = decode(prompt)
            middle = time.perf_counter()
            for _ in range(_NEW_TOKENS):
                token = decode([token])
            return middle - start, time.perf_counter() - middle

        runs = _repeated(run)
        lib.llama_memory_clear(lib.llama_get_memory(file.ctx), True)
        return _median_speed(runs, len(prompt), file.threads)

    def close(self) -> None:
        """Let the memory go."""
        self._head.close()
        if self._file is not None:
            self._file.close()


def _some_tokens(n_vocab: int, context: int) -> list[int]:
    """A fixed prompt that leaves room for the new tokens; speed does not depend on what it says."""
    length = max(1, min(_PROMPT_TOKENS, context - _NEW_TOKENS))
    return [(7919 * at + 11) % n_vocab for at in range(length)]


def _repeated(run: Callable[[], tuple[float, float]]) -> list[tuple[float, float]]:
    """Three runs; fewer when they take so long that their spread no longer matters."""
    start, runs = time.perf_counter(), [run()]
    while len(runs) < _RUNS and time.perf_counter() - start < _PATIENCE:
        runs.append(run())
    return runs


def _median_speed(runs: Sequence[tuple[float, float]], prompt_tokens: int, threads: int) -> Speed:
    return Speed(
        prompt=prompt_tokens / statistics.median(run[0] for run in runs),
        decode=_NEW_TOKENS / statistics.median(run[1] for run in runs),
        threads=threads,
    )
