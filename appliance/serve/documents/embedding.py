"""Vectors for texts: what an embedder is, and one from an embedding GGUF of this site.

Weights come from the site's own registry, never from a package or the network. Some models want a word
such as "query: " before a question; that is not known here, and texts are embedded as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.core.errors import ConfigWrong, EngineFailed
from appliance.core.home import Home
from appliance.models import registry
from appliance.serve.documents.parts import CONTEXT, LONGEST, joined, parts
from appliance.serve.embedding import Form, read_form

if TYPE_CHECKING:
    import numpy as np

    from appliance.models.llama import LlamaFile

Embed = Callable[[Sequence[str]], "np.ndarray"]  # texts -> float [n, d]
Parts = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """`name` for people; `id` also names the very weights, so that vectors of others are not mixed in.

    `parts` says of each text in how many parts it is read: more than one where it is too long for the model.
    """

    name: str
    id: str
    embed: Embed
    parts: Parts = lambda texts: [1] * len(texts)


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


def check_embeds(home: Home, name: str) -> None:
    """Check that a model was made to embed texts.

    The mean of the states of one that writes text was never trained to tell texts apart: with it a search
    by meaning finds worse than one by keywords alone, and nobody would notice.

    Raises:
        NotFound: there is no such model. ConfigWrong: it is no GGUF file, or one that writes text.
        ModelRejected: its file is damaged.
    """
    embedder_id(home, name)
    if not read_form(registry.get(home, name).path).pooled:
        raise ConfigWrong(
            f"{name} writes text and was not made to embed it: its file names no pooling.",
            "Give an embedding model, or --embed none to search by keywords only.",
        )


@contextmanager
def local_embedder(home: Home, name: str) -> Iterator[Embedder]:
    """The GGUF model `name` of the registry as an embedder, open while the block lasts; one thread.

    Raises:
        NotFound: there is no such model. ConfigWrong: it is no GGUF file, or no embedding model.
        ModelRejected: its file is not the one that was entered, or llama.cpp does not load it.
    """
    import numpy as np

    known = embedder_id(home, name)
    model = registry.intact(home, name)[0]
    check_embeds(home, name)
    with opened(model.path) as (file, form):
        yield Embedder(
            name=name,
            id=known,
            embed=lambda texts: np.stack([vector_of(file, form, text) for text in texts]),
            parts=lambda texts: [len(parts_of(file, form, text)) for text in texts],
        )


@contextmanager
def opened(path: Path, *, check: bool = False) -> Iterator[tuple[LlamaFile, Form]]:
    """An embedding GGUF, for `vector_of`; `check` reads all its weights.

    Raises:
        ModelRejected, EngineFailed: it is none, or llama.cpp does not load it.
    """
    from appliance.models.llama import LlamaFile

    form = read_form(path)
    # Never more than the model was trained for: llama.cpp aborts on a position that the file has not.
    with LlamaFile(path, context=min(form.context, CONTEXT), pooling=form.pooling, check=check) as file:
        yield file, form


def vector_of(file: LlamaFile, form: Form, text: str) -> np.ndarray:
    """The vector of `text`, float32 [width]; of a longer text than fits, that of its parts (parts.py).

    Raises:
        EngineFailed: there is none.
    """
    import numpy as np

    cut = parts_of(file, form, text)
    vectors = [_vector(file, tokens, form.width) for tokens in cut]
    return vectors[0] if len(cut) == 1 else joined(np.stack(vectors), [len(tokens) for tokens in cut])


def parts_of(file: LlamaFile, form: Form, text: str) -> list[list[int]]:
    """The tokens of `text`, in as many parts as it is read in; of its first characters (LONGEST) only.

    As the model was trained: with its own first and last token, no special token from the text.

    Raises:
        EngineFailed: there are none.
    """
    tokens = _tokens(file, form.reworded(text[:LONGEST]))
    if not tokens:
        raise EngineFailed("The embedding model reads no text.", "Use an embedding model.")
    return parts(tokens, _tokens(file, "") if len(tokens) > file.context else (), file.context)


def _tokens(file: LlamaFile, text: str) -> list[int]:
    import ctypes

    from appliance.models.llama import library

    content = text.encode("utf-8", "replace")
    room = len(content) + 8
    ids = (ctypes.c_int32 * room)()
    count = library().llama_tokenize(file.vocab, content, len(content), ids, room, True, False)
    return list(ids[: max(count, 0)])


def _vector(file: LlamaFile, tokens: list[int], width: int) -> np.ndarray:
    import numpy as np

    from appliance.models.llama import library

    lib, count = library(), len(tokens)
    lib.llama_memory_clear(lib.llama_get_memory(file.ctx), True)
    order, ones = np.arange(count, dtype=np.int32), np.ones(count, np.int8)
    file.run(np.array(tokens, np.int32), order, np.zeros(count, np.int32), ones)
    found = lib.llama_get_embeddings_seq(file.ctx, 0)
    if not found or lib.llama_model_n_embd_out(file.model) != width:
        raise EngineFailed("The embedding model gave no vector.", "Use an embedding model.")
    vector: np.ndarray = np.ctypeslib.as_array(found, (width,)).copy()
    return vector
