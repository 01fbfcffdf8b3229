"""What a GGUF file says of itself, read without llama.cpp: the gateway stays small and alive.

Layout: docs of the format in llama.cpp's ggml/docs/gguf.md, versions 2 and 3, little endian. Sizes
in the file are not believed: everything read is checked against what is left.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from appliance.core.errors import ModelRejected
from appliance.core.reading import local
from appliance.models.task import Task, task_from

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5
# llama.cpp makes control tokens of some entries that the file calls ordinary ("</s>", "<EOT>", ...);
# anything in brackets is therefore treated as if it might be one.
_MARKUP = re.compile(r"[_▁]?[<\[].+[>\]]", re.DOTALL)
_FILLING = re.compile(r"\[PAD\d+\]")  # what converters write for rows that no token has
_WANTED = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")


@dataclass(frozen=True, kw_only=True)
class Header:
    """`specials`: texts that may become one special token, longest first; `forced`: those of them
    that llama.cpp parses even where told not to (user-defined tokens). `normalizer`: the Unicode
    form that the tokenizer was trained on and llama.cpp does not make, or None; `space_prefix`: the
    same of spaces before text (models/wording.py); `defined`: all user-defined tokens."""

    architecture: str
    context: int
    template: str | None
    bos: int | None
    bos_text: str
    eos: int
    eos_text: str
    pad_text: str
    add_bos: bool
    specials: tuple[str, ...]
    forced: frozenset[str]
    normalizer: str | None
    space_prefix: str | None
    defined: frozenset[str]
    task: Task | None


@dataclass(frozen=True, kw_only=True)
class Texts:
    """An array of texts as it lies in the file: 150,000 objects would stay in memory."""

    content: bytes
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        at = 0
        for _ in range(self.count):
            text, at = _string(self.content, at)
            yield text

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < self.count:
            raise IndexError(number)
        return next(islice(self, number, None))


def read_header(path: Path) -> Header:
    """The header of the GGUF file at `path`.

    Raises:
        ModelRejected: it is not a GGUF file of version 2 or 3, or it is damaged.
    """
    with _whole(path):
        return _header(read_values(path))


def read_values(path: Path) -> dict[str, Any]:
    """The key-value pairs of a GGUF file; of arrays only the tokens and their types, others are None.

    Raises:
        ModelRejected: it is not a GGUF file of version 2 or 3, or it is damaged.
    """
    with (
        _whole(path),
        local(path).open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return dict(_pairs(content))


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as problem:
        raise ModelRejected(
            f"{path.name} is not a whole GGUF file ({type(problem).__name__}).",
            "Quantise the model again, or copy the file again.",
        ) from problem


def _header(values: dict[str, Any]) -> Header:
    architecture = values["general.architecture"]
    tokens: Texts = values["tokenizer.ggml.tokens"]
    kinds = values.get("tokenizer.ggml.token_type") or bytes([1]) * len(tokens)
    special, defined = set(), set()
    for text, kind in zip(tokens, kinds, strict=True):
        if not text or (kind == _UNUSED and _FILLING.fullmatch(text)):
            continue
        if kind == _USER_DEFINED:
            defined.add(text)
        if kind in (_UNKNOWN, _CONTROL) or _MARKUP.fullmatch(text):
            special.add(text)
    bos, eos = values.get("tokenizer.ggml.bos_token_id"), values["tokenizer.ggml.eos_token_id"]
    pad = values.get("tokenizer.ggml.padding_token_id")
    task = values.get("cloister.task")
    return Header(
        architecture=architecture,
        context=int(values[f"{architecture}.context_length"]),
        template=values.get("tokenizer.chat_template"),
        bos=bos,
        bos_text="" if bos is None else tokens[bos],
        eos=eos,
        eos_text=tokens[eos],
        pad_text="" if pad is None or pad < 0 else tokens[pad],
        add_bos=bool(values.get("tokenizer.ggml.add_bos_token", False)),
        specials=tuple(sorted(special, key=lambda text: (-len(text), text))),
        forced=frozenset(defined & special),
        normalizer=values.get("cloister.normalizer"),
        space_prefix=values.get("cloister.space_prefix"),
        defined=frozenset(defined),
        task=task_from(json.loads(task)) if task else None,
    )


def _pairs(content: mmap.mmap) -> Iterator[tuple[str, Any]]:
    """The key-value pairs; of arrays only those wanted are kept."""
    magic, version, _tensors, count = struct.unpack_from("<4sIQQ", content, 0)
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError("magic or version")
    at = 24
    for _ in range(count):
        key, at = _string(content, at)
        (kind,) = struct.unpack_from("<I", content, at)
        if kind == _ARRAY:
            value, at = _array(content, at + 4, keep=key in _WANTED)
        else:
            value, at = _value(content, at + 4, kind)
        yield key, value


def _value(content: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(content, at)
    form = "<" + _SCALARS[kind]
    return struct.unpack_from(form, content, at)[0], at + struct.calcsize(form)


def _string(content: mmap.mmap | bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", content, at)
    end = at + 8 + length
    if end > len(content):
        raise ValueError("string")
    return content[at + 8 : end].decode("utf-8", "replace"), end


def _array(content: mmap.mmap, at: int, *, keep: bool) -> tuple[Texts | array[Any] | None, int]:
    kind, count = struct.unpack_from("<IQ", content, at)
    at += 12
    if kind == _STRING:
        if count * 8 > len(content) - at:
            raise ValueError("array")
        start = at
        for _ in range(count):
            at += 8 + struct.unpack_from("<Q", content, at)[0]
        if at > len(content):
            raise ValueError("array")
        return (Texts(content=content[start:at], count=count) if keep else None), at
    form = _SCALARS[kind]
    end = at + count * struct.calcsize("<" + form)
    if end > len(content):
        raise ValueError("array")
    # Of numbers only the kinds of tokens are wanted, 32 bits each.
    return (array("i", content[at:end]) if keep and form == "i" else None), end
