"""Vectors for texts: what an embedder is, and one from an embedding GGUF of this site.

Weights come from the site's own registry, never from a package or the network. Some models want a word
such as "query: " before a question; that is not known here, and texts are embedded as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.core.errors import ConfigWrong, EngineFailed
from appliance.core.home import Home
from appliance.models import registry
from appliance.serve.embedding import read_form

if TYPE_CHECKING:
    import numpy as np

    from appliance.models.llama import LlamaFile

Embed = Callable[[Sequence[str]], "np.ndarray"]  # texts -> float [n, d]
_CONTEXT = 512  # tokens of one text; a passage has about 200


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """`name` for people; `id` also names the very weights, so that vectors of others are not mixed in."""

    name: str
    id: str
    embed: Embed


def embedder_id(home: Home, name: str) -> str:
    """The id that `local_embedder` gives for this model.

    Raises:
        NotFound: there is no such model. ConfigWrong: it is no GGUF file.
    """
    model = registry.get(home, name)
    if model.kind != "gguf":
        raise ConfigWrong(
            f"{name} is not a GGUF file.", "Import an embedding model: cloister model import FILE.gguf"
        )
    return f"{model.name}@{model.sha256[:16]}"


@contextmanager
def local_embedder(home: Home, name: str) -> Iterator[Embedder]:
    """The GGUF model `name` of the registry as an embedder, open while the block lasts; one thread.

    Raises:
        NotFound: there is no such model. ConfigWrong: it is no GGUF file.
        ModelRejected: its file is not the one that was entered, or llama.cpp does not load it.
    """
    import numpy as np

    from appliance.models.llama import LlamaFile

    known = embedder_id(home, name)
    model = registry.intact(home, name)[0]
    with LlamaFile(model.path, context=_CONTEXT, pooling=read_form(model.path).pooling) as file:
        yield Embedder(
            name=name, id=known, embed=lambda texts: np.stack([vector_of(file, text) for text in texts])
        )


def vector_of(file: LlamaFile, text: str) -> np.ndarray:
    """The vector of `text`, float32 [width], by a file that was opened with `pooling`.

    Raises:
        EngineFailed: there is none.
    """
    import numpy as np

    from appliance.models.llama import library

    lib = library()
    tokens = _tokens(file, text)
    count = len(tokens)
    lib.llama_memory_clear(lib.llama_get_memory(file.ctx), True)
    order, ones = np.arange(count, dtype=np.int32), np.ones(count, np.int8)
    file.run(np.array(tokens, np.int32), order, np.zeros(count, np.int32), ones)
    found = lib.llama_get_embeddings_seq(file.ctx, 0)
    if not found:
        raise EngineFailed("The embedding model gave no vector.", "Use an embedding model.")
    vector: np.ndarray = np.ctypeslib.as_array(found, (lib.llama_model_n_embd(file.model),)).copy()
    return vector


def _tokens(file: LlamaFile, text: str) -> list[int]:
    """As the model was trained: with its own first and last token, no special token from the text."""
    import ctypes

    from appliance.models.llama import library

    content = text[: 16 * _CONTEXT].encode("utf-8", "replace")
    room = len(content) + 8
    ids = (ctypes.c_int32 * room)()
    count = library().llama_tokenize(file.vocab, content, len(content), ids, room, True, False)
    if count <= 0:
        raise EngineFailed("The embedding model reads no text.", "Use an embedding model.")
    if count > _CONTEXT:
        return [*ids[: _CONTEXT - 1], ids[count - 1]]
    return list(ids[:count])
