"""The door's part for documents that answers may cite: index, look, search, open, remove."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from appliance.ops import jobs
from appliance.serve.documents import collections, passages, status
from appliance.serve.documents.embedding import check_embeds, local_embedder
from appliance.serve.documents.indexing import check_folder
from appliance.serve.documents.job import NO_EMBEDDER
from appliance.serve.documents.passages import Opened
from appliance.serve.documents.retrieve import Found
from appliance.serve.documents.retrieve import search as find
from appliance.serve.documents.status import Status
from tui.session_guard import acts, agree_job

if TYPE_CHECKING:
    from tui.session import Session

NOT_PROTECTED = collections.NOT_PROTECTED


@acts("docs.change")
def start_indexing(session: Session, folder: Path, collection: str, embed: str | None) -> str:
    """Start the job that indexes `folder`; see appliance/serve/documents/job.py for `embed`.

    Raises:
        NotFound, ConfigWrong: folder, collection or embedding model cannot be used.
    """
    collections.check_collection(collection)
    path = check_folder(session.home, collection, folder)
    spec = {"folder": str(path), "collection": collection}
    if embed is not None:
        if embed != NO_EMBEDDER:
            check_embeds(session.home, embed)
        spec["embed"] = embed
    agree_job(session, "docs", spec)
    return jobs.start(
        session.home,
        "docs",
        spec,
        title=f"index {collection}",
        who=session.who,
        signer=session.actor.signer,
    )


@acts("site.read")
def document_collections(session: Session) -> list[Status]:
    """Every collection; one that cannot be read raises."""
    return [status.status(session.home, name) for name in collections.collections(session.home)]


@acts("site.read")
def collection(session: Session, name: str) -> Status:
    """What one collection holds. Raises NotFound if there is none."""
    return status.status(session.home, name)


@acts("record.read")
def search(session: Session, name: str, question: str, *, embed: str | None, limit: int) -> Found:
    """The best passages of one collection; with the model `embed`, by meaning too.

    Raises:
        NotFound: there is no such collection or model. ConfigWrong: the model is no GGUF file.
    """
    collections.found_index(session.home, name)
    if embed is None:
        return find(session.home, [name], question, limit=limit)
    with local_embedder(session.home, embed) as embedder:
        return find(session.home, [name], question, embed=embedder, limit=limit)


@acts("record.read")
def open_passage(session: Session, address: str) -> Opened:
    """The exact text at `address`. Raises as passages.open_passage does."""
    return passages.open_passage(session.home, address)


@acts("docs.change")
def remove_collection(session: Session, name: str) -> None:
    """Remove a collection's index; the documents stay. Raises NotFound, Busy."""
    collections.remove(session.home, name, who=session.who)
