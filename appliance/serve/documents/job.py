"""The docs job: a folder of documents becomes a collection that answers may cite.

spec: {"folder", "collection"}, and optional "embed": the name of an embedding GGUF, or "none" for
keywords only; left out, what the collection has stays. Events hold counts and reasons, never a text or
a file's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.serve.documents import index
from appliance.serve.documents.collections import check_collection, index_path
from appliance.serve.documents.embedding import Embedder, local_embedder
from appliance.serve.documents.indexing import Indexed, check_folder, source, stale, update

NO_EMBEDDER = "none"
_PAUSE = 0.3  # seconds
_SETTINGS = {"folder", "collection", "embed"}


def run(spec: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Index one folder; gives the counts of `indexing.Indexed`.

    Raises:
        ConfigWrong: a setting is missing or unknown; else as `indexing.update`.
    """
    if unknown := sorted(set(spec) - _SETTINGS):
        raise ConfigWrong(
            f"Unknown setting: {', '.join(unknown)}.", f"Known: {', '.join(sorted(_SETTINGS))}."
        )
    collection = check_collection(str(spec.get("collection", "")))
    folder = check_folder(job.home, collection, Path(str(spec["folder"])))
    name = chosen_embedder(job.home, collection, spec.get("embed"))
    job.log("Document text is not protected by differential privacy.")
    with local_embedder(job.home, name) if name else nullcontext() as embedder:
        done = update(
            job.home, collection, folder, job=job.id, who=job.who, embedder=embedder, say=_now_and_then(job)
        )
    return asdict(done)


def _now_and_then(job: Job) -> Callable[[str, int, int], None]:
    """Progress, a few times a second and at both ends of a stage: there may be thousands of files."""
    told = 0.0

    def say(stage: str, done: int, total: int) -> None:
        nonlocal told
        if done in (0, total) or time.monotonic() - told > _PAUSE:
            told = time.monotonic()
            job.progress(stage, done, total)

    return say


def refresh(
    home: Home, collection: str, *, job: str, who: str, embedder: Embedder | None = None
) -> Indexed | None:
    """Index again what changed in a collection's folder; None: nothing did, or it needs another embedder.

    For whoever serves answers, in a thread that lasts: a look costs one `stat` a file.

    Raises:
        NotFound: the collection or its folder is not there. Busy: a job indexes it. Else as `update`.
    """
    folder = source(home, collection)
    if folder is None or not stale(home, collection):
        return None
    name = chosen_embedder(home, collection, None)
    if name and (embedder is None or embedder.name != name):
        return None
    return update(home, collection, folder, job=job, who=who, embedder=embedder if name else None)


def chosen_embedder(home: Home, collection: str, asked: str | None) -> str:
    """The name of the embedding model to use, "" for none: as asked, else what the collection has."""
    if asked is not None:
        return "" if asked == NO_EMBEDDER else asked
    path = index_path(home, collection)
    if not path.is_file():
        return ""
    with index.looking(path) as link:
        return index.meta(link).get("embedder_name", "")
