"""A soft prompt as new tokens: prompt tuning (Lester et al. 2021) in a form that every engine can serve.

The k trained vectors become the embeddings of k new control tokens, and the chat template puts those
tokens before every prompt. So the result is an ordinary model with a slightly larger vocabulary: it
converts to GGUF, is proven and served as any other. In the output layer the new tokens get the row of
the padding token, which is never the best answer.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from appliance.models.load import chat_template, read_json

_BOS = re.compile(r"\{\{-?\s*bos_token\s*-?\}\}")


class PromptedEmbedding(torch.nn.Module):
    """The base's embeddings (frozen), with `soft` in place of the ids first .. first + tokens - 1.

    Gemma multiplies its embeddings by a scale of their module; `soft` is scaled alike.
    """

    def __init__(self, words: torch.nn.Embedding, first: int, tokens: int) -> None:
        super().__init__()
        self.words, self.first, self.tokens = words, first, tokens
        self.scale = float(getattr(words, "scalar_embed_scale", 1.0))
        drawn = torch.randint(0, first, (tokens,))
        self.soft = torch.nn.Embedding(tokens, words.embedding_dim, device=words.weight.device)
        with torch.no_grad():
            self.soft.weight.copy_(words.weight[drawn].float())

    @property
    def weight(self) -> Tensor:
        """All rows, the trained ones in their place."""
        known, soft = self.words.weight, self.soft.weight.to(self.words.weight.dtype)
        return torch.cat([known[: self.first], soft, known[self.first + self.tokens :]])

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings of `ids`, [n, t, width]."""
        place = ids - self.first
        new = (place >= 0) & (place < self.tokens)
        known: Tensor = self.words(ids.masked_fill(new, 0))
        soft: Tensor = self.soft(place.masked_fill(~new, 0)) * self.scale
        return torch.where(new[..., None], soft.to(known.dtype), known)


def add_prompt(model: Any, tokens: int, first: int) -> None:
    """Train the embeddings of the new tokens `first` .. of an untied base; their output rows are frozen.

    Rows that the base keeps for padding its matrices are used before any are added.
    """
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    model.set_input_embeddings(PromptedEmbedding(words, first, tokens))
    pad = model.config.pad_token_id or 0
    rest = head.weight[first + tokens :]
    wide = torch.cat([head.weight[:first], head.weight[pad].expand(tokens, -1), rest]).detach()
    head.weight = torch.nn.Parameter(wide, requires_grad=False)
    head.out_features = len(wide)
    model.config.vocab_size = model.vocab_size = len(wide)


def fold_prompt(model: Any) -> None:
    """Make the trained rows ordinary embeddings, so that the model can be saved as any other."""
    prompted = model.get_input_embeddings()
    if isinstance(prompted, PromptedEmbedding):
        words = prompted.words
        words.weight = torch.nn.Parameter(prompted.weight.detach().clone())
        words.num_embeddings = len(words.weight)
        model.set_input_embeddings(words)


def first_free(words: dict[str, Any]) -> int:
    """The first id that no token of a tokenizer.json has; new tokens must follow the others."""
    ids = [*words["model"]["vocab"].values(), *(added["id"] for added in words.get("added_tokens", []))]
    return int(max(ids)) + 1


def prompted_words(base: Path, folder: Path, tokens: int) -> int:
    """Write into `folder` the base's tokenizer and chat template with `tokens` new tokens in front.

    Returns the first new id.
    """
    folder.mkdir(exist_ok=True)
    for file in base.iterdir():
        if file.suffix in (".json", ".jinja", ".model") and "safetensors" not in file.name:
            shutil.copyfile(file, folder / file.name)
    words = read_json(folder / "tokenizer.json")
    first = first_free(words)
    names = [f"<|soft_{number}|>" for number in range(tokens)]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    words["added_tokens"] = [
        *words.get("added_tokens", []),
        *({"id": first + number, "content": name, **plain} for number, name in enumerate(names)),
    ]
    (folder / "tokenizer.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
    template, prefix = chat_template(base), "".join(names)
    begun = _BOS.search(template)
    at = begun.end() if begun else 0
    (folder / "chat_template.jinja").write_text(template[:at] + prefix + template[at:], encoding="utf-8")
    config = folder / "tokenizer_config.json"
    if config.exists():
        kept = {key: value for key, value in read_json(config).items() if key != "chat_template"}
        config.write_text(json.dumps(kept, ensure_ascii=False, indent=2), encoding="utf-8")
    return first
