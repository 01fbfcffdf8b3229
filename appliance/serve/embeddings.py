"""POST /v1/embeddings: texts in, vectors out, in OpenAI's shape."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.serve.messages import clean
from appliance.serve.refusals import Refused

_MOST, _LONGEST = 64, 100_000  # texts, characters in all


@dataclass(frozen=True, kw_only=True)
class EmbedAsk:
    """A checked request; `packed` wants each vector as base64 of little-endian float32."""

    model: str
    texts: tuple[str, ...] = field(repr=False)
    packed: bool


def read_embedding(body: Any) -> EmbedAsk:
    """The request, checked.

    Raises:
        Refused: anything missing, malformed, not supported, or more than 64 texts.
    """
    if not isinstance(body, dict):
        raise Refused("The body must be a JSON object.")
    values = {name: value for name, value in body.items() if value is not None}
    for name in values.keys() - {"model", "input", "encoding_format", "user"}:
        shown = name if name.isidentifier() and len(name) <= 40 else "A parameter"
        raise Refused(f"{shown} is not supported here.", param=shown, code="unsupported_parameter")
    texts = values.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if (
        not isinstance(texts, list)
        or not 0 < len(texts) <= _MOST
        or not all(isinstance(text, str) and text.strip() for text in texts)
    ):
        raise Refused(f"input must be one to {_MOST} texts that are not empty.", param="input")
    if sum(map(len, texts)) > _LONGEST:
        raise Refused(f"input may have {_LONGEST} characters in all.", param="input")
    if not isinstance(values.get("model"), str):
        raise Refused("model must name the model.", param="model")
    form = values.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise Refused("encoding_format must be float or base64.", param="encoding_format")
    return EmbedAsk(
        model=values["model"], texts=tuple(clean(text, "input") for text in texts), packed=form == "base64"
    )


def embedding_body(ask: EmbedAsk, vectors: Sequence[Sequence[float]], tokens: int) -> dict[str, Any]:
    """The body of the answer: one vector of unit length for each text."""
    return {
        "object": "list",
        "model": ask.model,
        "data": [
            {
                "object": "embedding",
                "index": place,
                "embedding": _packed(vector) if ask.packed else list(vector),
            }
            for place, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
