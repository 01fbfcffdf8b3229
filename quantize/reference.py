"""The model as transformers and peft compute it: what a converted file is measured against.

Runs in a child, so that torch is loaded beside the conversion and gone before serving.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from appliance.models.load import load_torch

Message = dict[str, str]
LOGIT_BYTES = 128_000_000  # of stored logits, at most
SMALL = 30_000_000  # parameters
# Tokens to compare, so that a proof takes minutes at any size: EFFORT / parameters, within bounds.
EFFORT, LEAST_TOKENS, MOST_TOKENS = 1.5e11, 300, 5000
LONG_ROWS = 64  # of the long window, only the last positions are compared


def reference(
    base: str,
    adapter: str | None,
    strings: list[str],
    chats: list[list[Message]],
    answered: list[tuple[list[Message], str]],
    passages: list[str],
    logits: str,
    longest: int,
) -> dict[str, Any]:
    """Token ids, rendered chats and windows of tokens; the windows' logits go to `logits` (.npy).

    A window is {"ids", "keep"}: the last `keep` positions have rows in the file, in order.
    `answered` are chats with the text that follows the generation prompt. `longest`: tokens of a
    window, at most; beyond, the converted file is another model (a sliding window that it lacks).
    """
    import torch
    from jinja2 import TemplateError

    model, tokenizer = load_torch(Path(base), Path(adapter) if adapter else None)
    weights = sum(part.numel() for part in model.parameters())
    if weights < SMALL:
        torch.set_num_threads(1)  # threads that wait for each other cost more than they bring
    effort = int(min(MOST_TOKENS, max(LEAST_TOKENS, EFFORT / weights)))

    def ids(text: str) -> list[int]:
        return _ids(tokenizer, text)

    def rendered(chat: list[Message], generation: bool) -> str | None:
        how = {"tokenize": False, "add_generation_prompt": generation}
        try:
            try:
                text = tokenizer.apply_chat_template(chat, **how)
            except TypeError:  # it loops over tools unasked; prompt.render does as we do
                text = tokenizer.apply_chat_template(chat, tools=[], **how)
        except (TemplateError, TypeError, ValueError):  # many templates refuse a system turn
            return None
        return str(text)

    starts = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    prompts = [ids(rendered(chat, True) or "") + ids(answer) for chat, answer in answered]
    context = min(512, effort // 2, longest, int(model.config.max_position_embeddings))
    long = (starts + ids("\n\n".join(passages)))[:context]
    running = [(starts + ids(text))[:128] for text in passages]
    windows = [{"ids": long, "keep": min(LONG_ROWS, len(long))}]
    for number, part in enumerate(prompts):
        windows.append({"ids": part[:context], "keep": len(part[:context])})
        if number % 8 == 7 and running:
            windows.append({"ids": running[0][:context], "keep": len(running.pop(0)[:context])})
    windows = _within(windows, 3 * effort, 3 * MOST_TOKENS)
    width = int(model.get_output_embeddings().weight.shape[0])
    compared = _within(windows, effort, LOGIT_BYTES // (4 * width))
    rows = np.lib.format.open_memmap(
        logits, "w+", np.float32, (sum(window["keep"] for window in compared), width)
    )
    at = 0
    with torch.inference_mode():
        for window in compared:
            keep = window["keep"]
            found = model(torch.tensor([window["ids"]], device=model.device)).logits[0, -keep:]
            rows[at : at + keep] = found.float().cpu().numpy()
            at += keep
    rows.flush()
    return tokens(tokenizer, strings) | {
        "chats": [
            {"chat": chat, "generation": generation, "text": text, "ids": ids(text or "")}
            for chat in chats
            for generation in (False, True)
            for text in [rendered(chat, generation)]
        ],
        "ends": _numbers(model.generation_config.eos_token_id),
        "width": width,
        "windows": windows,
        "compared": len(compared),
    }


def tokens(tokenizer: Any, strings: list[str]) -> dict[str, Any]:
    """Token ids of `strings`, with special tokens read from text and without, and what BOS and EOS are.

    "spelled" are the added tokens that are read from text even where special tokens are not.
    """
    ids = tokenizer.get_added_vocab()
    added = sorted(ids)
    bos = tokenizer.bos_token_id
    return {
        "special": [_ids(tokenizer, text) for text in strings],
        "plain": [_ids(tokenizer, text, split=True) for text in strings],
        "added": added,
        "spelled": [text for text in added if ids[text] in _ids(tokenizer, text, split=True)],
        "bos": bos,
        "eos": tokenizer.eos_token_id,
        "adds_bos": bos is not None and tokenizer("a")["input_ids"][:1] == [bos],
    }


def _ids(tokenizer: Any, text: str, split: bool = False) -> list[int]:
    found = tokenizer(text, add_special_tokens=False, split_special_tokens=split)["input_ids"]
    return [int(number) for number in found]


def _within(windows: list[dict[str, Any]], tokens: int, rows: int) -> list[dict[str, Any]]:
    """The first windows that have at most `tokens` tokens, and at most `rows` kept, together."""
    taken: list[dict[str, Any]] = []
    for window in windows:
        tokens, rows = tokens - len(window["ids"]), rows - window["keep"]
        if min(tokens, rows) < 0:
            break
        taken.append(window)
    return taken


def _numbers(value: Any) -> list[int]:
    return [] if value is None else [int(n) for n in (value if isinstance(value, list) else [value])]
