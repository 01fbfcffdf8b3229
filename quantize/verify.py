"""Is the file the model? Its tokens, chats and logits against transformers; a smaller file against F16.

The parts that touch libllama (`examine`, `lose`) run in a child; the judging is pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from appliance.core.errors import ModelRejected
from appliance.models.llama import LlamaFile
from appliance.models.prompt import render
from quantize.header import Gguf
from quantize.limits import Parity, shortfalls
from quantize.measure import compare, loss_figures, parity_figures, surprise

_SERVED = 8  # windows that are computed as serving does too
_GROUP, _GROUP_LOGITS = 8, 16_000_000  # windows, and logits of one file, at a time
# What llama.cpp's quantiser may change of a file's key-values.
_MAY_CHANGE = {"general.file_type", "general.quantization_version"}
_MAY_CHANGE |= {f"quantize.imatrix.{key}" for key in ("dataset", "entries_count", "chunks_count")}


def examine(
    file: str,
    strings: list[str],
    chats: list[dict[str, Any]],
    ends: list[int],
    windows: list[dict[str, Any]],
    logits: str,
    adapter: str | None = None,
    served: bool = False,
) -> dict[str, Any]:
    """What llama.cpp makes of the same strings, chats and windows that `reference` was given.

    `adapter` is a LoRA GGUF to put on `file`. `served`: some windows are computed with serving's
    settings too; "served" has their figures against the exact logits.
    """
    with LlamaFile(file, context=max(len(window["ids"]) for window in windows), exact=True) as llama:
        if adapter:
            llama.use_adapters({Path(adapter): 1.0})
        rows = np.lib.format.open_memmap(
            logits, "w+", np.float32, (sum(window["keep"] for window in windows), llama.n_vocab)
        )
        at = 0
        for window in windows:
            found = llama.logits([window["ids"]], [window["keep"]])[0]
            rows[at : at + len(found)] = found
            at += len(found)
        rows.flush()
        seen = read_tokens(llama, strings) | {
            "chats": [_chat(llama, chat["chat"], chat["generation"]) for chat in chats],
            "ends": [token for token in ends if llama.is_end(token)],
        }
    return seen | {"served": _as_served(file, windows, rows, adapter)} if served else seen


def _as_served(
    file: str, windows: list[dict[str, Any]], exact: np.ndarray, adapter: str | None
) -> dict[str, Any]:
    """Figures of the longest window and of some others as they are served, against the `exact` logits.

    Serving keeps keys and values in F16, where what is beyond 65504 becomes infinite.
    """
    ends = np.cumsum([window["keep"] for window in windows])
    longest = max(range(len(windows)), key=lambda i: len(windows[i]["ids"]))
    chosen = {longest, *np.linspace(0, len(windows) - 1, _SERVED - 1).astype(int).tolist()}
    parts = []
    with LlamaFile(file, context=len(windows[longest]["ids"])) as llama:
        if adapter:
            llama.use_adapters({Path(adapter): 1.0})
        for i in sorted(chosen):
            ids, keep = windows[i]["ids"], windows[i]["keep"]
            parts.append(compare(llama.logits([ids], [keep])[0], exact[ends[i] - keep : ends[i]]))
    return {"windows": len(chosen)} | parity_figures(parts)


def read_tokens(llama: LlamaFile, strings: list[str]) -> dict[str, Any]:
    """What `reference.tokens` says of transformers, from llama.cpp; "kept" are special tokens that stay
    text where special tokens are not read, "ends_here" all tokens that end an answer."""
    return {
        "special": [llama.tokenize(text, special=True) for text in strings],
        "plain": [llama.tokenize(text, special=False) for text in strings],
        "control": sorted(llama.special_tokens()),
        "kept": sorted(llama.kept_as_text()),
        "ends_here": [token for token in range(llama.n_vocab) if llama.is_end(token)],
        "bos": llama.bos,
        "eos": llama.eos,
        "adds_bos": llama.metadata.get("tokenizer.ggml.add_bos_token") == "true",
        "width": llama.n_vocab,
    }


def _chat(llama: LlamaFile, chat: list[dict[str, str]], generation: bool) -> dict[str, Any]:
    try:
        text = render(
            llama.chat_template or "",
            chat,
            bos_token=llama.piece(llama.bos).decode() if llama.bos >= 0 else "",
            eos_token=llama.piece(llama.eos).decode(),
            pad_token=llama.piece(llama.pad).decode() if llama.pad >= 0 else "",
            add_generation_prompt=generation,
        )
    except ModelRejected:
        return {"text": None, "ids": []}
    return {"text": text, "ids": llama.tokenize(text, special=True)}


def lose(file: str, against: str, windows: list[dict[str, Any]]) -> dict[str, Any]:
    """How much `file` lost against `against` (its F16), both computed as they are served."""
    windows = [window for window in windows if window["keep"] > 1]  # a last position has no next token
    size = 2 * max(len(window["ids"]) for window in windows)
    parts = []
    with (
        LlamaFile(file, context=size, sequences=_GROUP) as ours,
        LlamaFile(against, context=size, sequences=_GROUP) as theirs,
    ):
        for group in _groups(windows, _GROUP_LOGITS // ours.n_vocab):
            ids = [window["ids"] for window in group]
            keep = [window["keep"] for window in group]
            for tokens, a, b in zip(ids, ours.logits(ids, keep), theirs.logits(ids, keep), strict=True):
                a, b = a[:-1], b[:-1]
                following = np.array(tokens[-len(a) :])
                parts.append(
                    compare(a, b) | {"ours": surprise(a, following), "theirs": surprise(b, following)}
                )
    return loss_figures(parts)


def _groups(windows: list[dict[str, Any]], rows: int) -> Iterator[list[dict[str, Any]]]:
    """Runs of at most _GROUP windows that keep at most `rows` rows together, or one window."""
    group: list[dict[str, Any]] = []
    for window in windows:
        if group and (len(group) == _GROUP or sum(w["keep"] for w in group) + window["keep"] > rows):
            yield group
            group = []
        group.append(window)
    yield group


def judge(
    kind: str,
    limit: Parity,
    strings: list[str],
    wanted: dict[str, Any],
    seen: dict[str, Any],
    theirs: Path,
    ours: Path,
) -> tuple[dict[str, Any], list[str]]:
    """What `examine` saw of a draft of type `kind` against `reference`: figures, and faults in words.

    `limit` is what the figures must reach; `theirs` and `ours` are the two files of logits.
    """
    tokens, faults = judge_tokens(strings, wanted, seen, limit.tokens)
    template, unlike = judge_chats(wanted, seen, limit.chats)
    figures = parity(theirs, ours)
    faults += unlike + [f"{kind} logits: {fault}" for fault in shortfalls(figures, limit)]
    told = {"tokens": tokens, "template": template, "logits": figures}
    if "served" in seen:
        told["served"] = seen["served"]
        missed = [
            fault
            for fault in shortfalls(seen["served"], limit)
            if not fault.startswith(("max_abs", "same_top"))
        ]
        faults += [f"{kind} as served: {fault}" for fault in missed]
    return told, faults


def judge_tokens(
    strings: list[str], wanted: dict[str, Any], seen: dict[str, Any], least: float = 1.0
) -> tuple[dict[str, Any], list[str]]:
    """Token ids of all strings: with special tokens read from text, and without.

    `least` is the share that must be equal.

    Two differences are allowed and counted. llama.cpp takes some texts (</s>, <|im_end|>) for control
    tokens whatever the file says; serving reads user text without special tokens, where all is equal.
    And where special tokens are not read, transformers still makes some of text (Unigram's own, those
    not marked as special) that llama.cpp keeps as text: what we want of a user's words.

    llama.cpp ends an answer at more tokens than transformers ("ends_here"); none of the others may
    stand inside a rendered chat, since it would cut an answer short there.
    """
    odd = set(seen["control"]) - set(wanted["added"])
    kept = set(seen["kept"]) & set(wanted["spelled"])
    wrong, excused = [], 0
    for i, text in enumerate(strings):
        if wanted["plain"][i] != seen["plain"][i]:
            if wanted["special"][i] == seen["special"][i] and any(token in text for token in kept):
                excused += 1
            else:
                wrong.append(i)
        elif wanted["special"][i] != seen["special"][i]:
            if any(token in text for token in odd):
                excused += 1
            else:
                wrong.append(i)
    found: dict[str, Any] = {"strings": len(strings), "equal": len(strings) - len(wrong) - excused}
    found |= {"excused": excused, "ends_here": seen["ends_here"]}
    faults = []
    if len(wrong) > (1 - least) * len(strings):
        faults.append(f"token ids differ on {len(wrong)} of {len(strings)} strings (first: {wrong[0]})")
    for key, what in (
        ("bos", "BOS"),
        ("eos", "EOS"),
        ("adds_bos", "adding BOS"),
        ("width", "vocabulary size"),
    ):
        if wanted[key] is not None and wanted[key] != seen[key]:
            faults.append(f"{what} is {seen[key]}, not {wanted[key]}")
    if missing := set(wanted["ends"]) - set(seen["ends"]):
        faults.append(f"tokens {sorted(missing)} do not end an answer")
    extra = set(seen["ends_here"]) - {*wanted["ends"], wanted["eos"]}
    if inside := extra & {token for chat in wanted["chats"] for token in chat["ids"][:-1]}:
        faults.append(
            f"tokens {sorted(inside)}, which stand inside chats, end an answer in llama.cpp but not in"
            " transformers (eos_token_id of generation_config.json)"
        )
    return found, faults


def judge_chats(
    wanted: dict[str, Any], seen: dict[str, Any], least: float = 1.0
) -> tuple[dict[str, Any], list[str]]:
    """The chat template: rendered text and its token ids, equal in a share of at least `least`."""
    pairs = list(zip(wanted["chats"], seen["chats"], strict=True))
    equal = sum(a["text"] == b["text"] and a["ids"] == b["ids"] for a, b in pairs)
    rendered = sum(a["text"] is not None for a, _ in pairs)
    faults = []
    if equal < least * len(pairs):
        faults.append(f"{len(pairs) - equal} of {len(pairs)} chats are rendered otherwise")
    if not rendered:
        faults.append("the chat template renders no chat")
    return {"chats": len(pairs), "equal": equal, "rendered": rendered}, faults


def parity(wanted: Path, seen: Path) -> dict[str, Any]:
    """Figures of two .npy files of logits, the first from transformers."""
    theirs, ours = np.load(wanted, mmap_mode="r"), np.load(seen, mmap_mode="r")
    if theirs.shape != ours.shape:
        shape = f"{list(ours.shape)} against {list(theirs.shape)}"
        raise ModelRejected(
            f"The logits have another shape: {shape}.", "The tokenizer does not fit the model."
        )
    step = 128
    return parity_figures(
        [compare(ours[at : at + step], theirs[at : at + step]) for at in range(0, len(theirs), step)]
    )


def same_words(file: Gguf, against: Gguf) -> bool:
    """Whether two files say the same about everything but the type of their weights."""

    def said(header: Gguf) -> dict[str, Any]:
        return {key: value for key, value in header.values.items() if key not in _MAY_CHANGE} | header.arrays

    return said(file) == said(against)
