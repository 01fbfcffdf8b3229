"""Where logits come from: transformers (base, adapter) or llama.cpp (GGUF)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import ModelRejected
from appliance.models.encoding import Encoder
from appliance.models.llama import LlamaFile, library
from appliance.models.load import chat_template, load_torch
from appliance.models.task import Task

_NEW_TOKENS = 64
_PROMPT_TOKENS = 256
_RUNS = 3
_LONGEST = 4096  # evaluation reads no longer prompts than this, whatever the model allows
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
        self._model, self._tokenizer = load_torch(base, adapter)
        self._template = chat_template(base)
        self.context = min(int(self._model.config.max_position_embeddings), _LONGEST)
        self.max_tokens = max(4096, self.context)
        self.n_vocab = int(self._model.config.vocab_size)

    def encoder(self, task: Task) -> Encoder:
        """See Scorer."""
        tokenizer = self._tokenizer
        return Encoder(
            tokenize=lambda text: tokenizer(text, add_special_tokens=False).input_ids,
            template=self._template,
            bos_token=tokenizer.bos_token or "",
            eos_token=tokenizer.eos_token or "",
            eos=tokenizer.eos_token_id,
            task=task,
            limit=self.context,
        )

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
                out = self._model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
                token = out.logits[:, -1:].argmax(-1)
                int(token)
            return middle - start, time.perf_counter() - middle

        with torch.inference_mode():
            return _median_speed([run() for _ in range(_RUNS)], prompt.shape[1], torch.get_num_threads())

    def close(self) -> None:
        """Let the memory go."""
        self._model = self._tokenizer = None


class GgufScorer:
    """A GGUF file through llama.cpp, the way it is served."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        with LlamaFile(path, vocab_only=True) as head:
            trained = head.metadata.get(f"{head.metadata.get('general.architecture')}.context_length", "")
        self.context = min(int(trained) if trained.isdigit() else _UNTOLD, _LONGEST)
        self.max_tokens = max(1024, self.context)
        self._file = LlamaFile(path, context=self.max_tokens, sequences=64, threads=threads)
        self.n_vocab = self._file.n_vocab
        if self._file.chat_template is None:
            self._file.close()
            raise ModelRejected(
                f"{path.name} has no chat template.", "Quantise it again with `cloister quantize`."
            )
        self._template = self._file.chat_template

    def encoder(self, task: Task) -> Encoder:
        """See Scorer."""
        file = self._file
        return Encoder(
            tokenize=lambda text: file.tokenize(text, special=True),
            template=self._template,
            bos_token=file.piece(file.bos).decode() if file.bos >= 0 else "",
            eos_token=file.piece(file.eos).decode() if file.eos >= 0 else "",
            eos=file.eos,
            task=task,
            limit=self.context,
        )

    def logits(self, prompts_tokens: list[list[int]], keep: list[int]) -> list[NDArray[np.float32]]:
        """See Scorer."""
        return self._file.logits(prompts_tokens, keep)

    def speed(self) -> Speed:
        """Measure with a KV cache, one stream, median of three runs."""
        prompt = _some_tokens(self.n_vocab, self.context)
        lib, file = library(), self._file

        def decode(tokens: Sequence[int]) -> int:
            ids = (lib.llama_token * len(tokens))(*tokens)
            if lib.llama_decode(file.ctx, lib.llama_batch_get_one(ids, len(tokens))) != 0:
                return file.eos
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

        runs = [run() for _ in range(_RUNS)]
        lib.llama_memory_clear(lib.llama_get_memory(file.ctx), True)
        return _median_speed(runs, len(prompt), file.threads)

    def close(self) -> None:
        """Let the memory go."""
        self._file.close()


def _some_tokens(n_vocab: int, context: int) -> list[int]:
    """A fixed prompt that leaves room for the new tokens; speed does not depend on what it says."""
    length = max(1, min(_PROMPT_TOKENS, context - _NEW_TOKENS))
    return [(7919 * at + 11) % n_vocab for at in range(length)]


def _median_speed(runs: Sequence[tuple[float, float]], prompt_tokens: int, threads: int) -> Speed:
    return Speed(
        prompt=prompt_tokens / statistics.median(run[0] for run in runs),
        decode=_NEW_TOKENS / statistics.median(run[1] for run in runs),
        threads=threads,
    )
