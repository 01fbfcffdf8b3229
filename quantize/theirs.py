"""What transformers makes of a folder's tokenizer. These functions run in a child.

transformers builds some tokenizers anew and takes only vocabulary and merges from tokenizer.json
(LlamaTokenizer, GemmaTokenizer), so the file alone does not say how text is read.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from appliance.core.files import sha256_file, write_json
from appliance.models.load import load_tokenizer
from quantize import worker


def in_use(folder: Path) -> dict[str, Any]:
    """The content of tokenizer.json as transformers uses it.

    Raises:
        EngineFailed: transformers does not open it.
    """
    return json.loads(_in_use(str(folder), fingerprint(folder)))


@lru_cache(maxsize=1)  # both drafts of a model ask
def _in_use(folder: str, fingerprint: str) -> str:
    return str(worker.run(describe, doing="Opening the tokenizer with transformers", folder=folder))


def fingerprint(folder: Path) -> str:
    """SHA-256 over the files that decide how text is read."""
    files = [file for file in sorted(folder.glob("*.json")) if not file.name.endswith(".index.json")]
    return hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()


def describe(folder: str) -> str:
    """The JSON of the backend that transformers uses."""
    _without_torch()
    return str(load_tokenizer(Path(folder)).backend_tokenizer.to_str())


def _without_torch() -> None:
    """Have transformers come up without torch: tokenizers do not need it, and it takes most of the time."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]


def spell(folder: str, strings: list[str], target: str) -> int:
    """Write strings and their token ids, special tokens not read from text, to `target` (JSON).

    After `strings` come the texts of all tokens of the vocabulary that are text on their own. Returns
    how many there are in all.
    """
    _without_torch()
    tokenizer = load_tokenizer(Path(folder))
    backend = tokenizer.backend_tokenizer
    size = backend.get_vocab_size(with_added_tokens=False)
    words = backend.decode_batch([[number] for number in range(size)], skip_special_tokens=False)
    texts = [*strings, *(word for word in words if word and "\ufffd" not in word)]
    found = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    write_json(Path(target), {"strings": texts, "ids": found})
    return len(texts)
