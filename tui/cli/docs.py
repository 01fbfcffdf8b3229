"""cloister docs: documents that answers may cite."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tui.cli.face import Face, command

if TYPE_CHECKING:
    from appliance.serve.documents.passages import Passage
    from appliance.serve.documents.status import Status

app = typer.Typer(help="Documents that answers may cite: index, search, open.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A collection.")]
_WIDE = 79
_KINDS = ".txt, .md, .html, .pdf and .docx"
_SHOWN = 40  # files that are listed with their reason


@command(app)
def add(
    face: Face,
    folder: Annotated[Path, typer.Argument(help="A folder with .txt, .md, .html, .pdf or .docx files.")],
    collection: Annotated[str, typer.Option(help="Its name: a-z, 0-9 and -.")],
    embed: Annotated[
        str | None,
        typer.Option(
            help="An embedding model (GGUF) to search by meaning too; `none`: by keywords only. Left out,"
            " the collection keeps what it has."
        ),
    ] = None,
) -> None:
    """Index a folder of documents, or bring its index up to date: only what changed is read.

    Document text is not protected by differential privacy: answers may repeat it word for word.
    """
    from tui import session_docs

    job = face.follow(session_docs.start_indexing(face.session, folder, collection, embed))
    done = job.end["result"]
    face.say(
        f"{collection}: {done['added']} files added, {done['changed']} changed, {done['removed']} removed,"
        f" {done['same']} as before; {done['passages']:,} passages"
    )
    for reason, count in done["left_out"].items():
        _wrapped(face, f"left out {count}: {_reason(reason)}")
    if not done["passages"]:
        _wrapped(face, f"WARNING: {folder} holds no document that can be read, so nothing can be cited.")
    face.say(f"  Searched by {_by(done['embedder'])}. See: cloister docs show {collection}")
    _say_long(face, done["in_parts"])
    face.result(done | {"job": job.id, "protected": False})


@command(app, "list")
def list_(face: Face) -> None:
    """List collections."""
    from tui import session_docs

    found = session_docs.document_collections(face.session)
    face.table(
        ("collection", "files", "passages", "searched by", "indexed"),
        [
            (one.collection, f"{one.read:,}", f"{one.passages:,}", f"{one.search:.28}", one.updated[:16])
            for one in found
        ],
        "No documents yet. Index a folder: cloister docs add FOLDER --collection NAME",
    )
    for one in found:
        _say_stale(face, one)
    if found:
        _wrapped(face, session_docs.NOT_PROTECTED)
    face.result({"collections": [_told(one) for one in found]})


@command(app)
def show(face: Face, collection: Name) -> None:
    """Show what a collection holds, what was left out and why, and how it is searched."""
    from tui import session_docs

    found = session_docs.collection(face.session, collection)
    face.say(f"{found.collection}: {found.read:,} files, {found.passages:,} passages")
    _wrapped(face, f"from {found.folder}")
    _wrapped(face, f"indexed {found.updated[:16]}, searched by {found.search}")
    _say_long(face, found.in_parts)
    if found.stale is None:
        _wrapped(face, "The folder is away; what was indexed is still cited.")
    _say_stale(face, found)
    face.table(
        ("file", "kind", "pages", "passages"),
        [
            (_cut(file.path, 52), file.path.rpartition(".")[2].lower(), file.pages or "-", file.passages)
            for file in found.files
            if not file.reason
        ],
        "  No file of it could be read.",
    )
    left = [file for file in found.files if file.reason]
    if left:
        face.say("Left out:")
    for file in left[:_SHOWN]:
        _wrapped(face, f"{_cut(file.path, 60)}: {_reason(file.reason)}")
    if len(left) > _SHOWN:
        face.say(f"  ... and {len(left) - _SHOWN} more")
    _wrapped(face, session_docs.NOT_PROTECTED)
    files = [
        {"file": file.path, "sha256": file.sha256, "pages": file.pages, "passages": file.passages}
        for file in found.files
        if not file.reason
    ]
    face.result(
        _told(found) | {"files": files, "left_out": [{"file": f.path, "reason": f.reason} for f in left]}
    )


@command(app)
def search(
    face: Face,
    collection: Name,
    question: Annotated[str, typer.Argument(help="What to look for, in plain words.")],
    embed: Annotated[
        str | None,
        typer.Option(help="The embedding model the index was made with, to search by meaning too."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Passages at most.", min=1, max=50)] = 4,
) -> None:
    """Show the passages that a model would be given for a question."""
    from tui import session_docs

    found = session_docs.search(face.session, collection, question, embed=embed, limit=limit)
    for number, passage in enumerate(found.passages, start=1):
        face.say(f"[{number}] {_place(passage)}")
        _wrapped(face, " ".join(passage.text.split()), lines=6)
        face.say(f"  cloister docs open {shlex.quote(passage.address)}")
    if not found.passages:
        face.say("No passage has any of these words.")
    face.say(f"Searched by {found.how[collection]}.")
    _say_stale(face, session_docs.collection(face.session, collection))
    face.result({"search": found.how[collection], "passages": [_passage(one) for one in found.passages]})


@command(app, "open")
def open_(
    face: Face, address: Annotated[str, typer.Argument(help="The address that a search or an answer gave.")]
) -> None:
    """Show the exact text of a passage with what stands around it."""
    from tui import session_docs

    found = session_docs.open_passage(face.session, address)
    face.say(_place(found.passage))
    if not found.checked:
        _wrapped(face, "The folder is away: this is the text as it was indexed.")
    face.say()
    for mark, text in (("  ", found.before), ("> ", found.passage.text), ("  ", found.after)):
        for line in text.strip("\n").split("\n") if text.strip() else ():
            for part in textwrap.wrap(line, _WIDE - 2) or [""]:
                face.say(f"{mark}{part}".rstrip())
    face.result(
        _passage(found.passage) | {"before": found.before, "after": found.after, "checked": found.checked}
    )


@command(app)
def remove(face: Face, collection: Name) -> None:
    """Remove a collection's index. The documents themselves stay where they are."""
    from tui import session_docs

    session_docs.remove_collection(face.session, collection)
    face.say(f"{collection} is removed; its documents stay where they are.")
    face.result({"collection": collection, "removed": True})


def _say_long(face: Face, count: int) -> None:
    """That passages are longer than the embedding model reads, and what that means."""
    if count:
        passages = "1 passage is" if count == 1 else f"{count:,} passages are"
        _wrapped(
            face,
            f"{passages} longer than the embedding model reads at once: each part is embedded by itself, and"
            " the mean stands for the whole. Nothing is left out.",
        )


def _say_stale(face: Face, found: Status) -> None:
    """That files changed since they were indexed, and what to do."""
    if found.stale:
        _wrapped(
            face,
            f"{found.collection}: {found.stale} {'file' if found.stale == 1 else 'files'} changed since."
            f" Read them: cloister docs add {shlex.quote(found.folder)} --collection {found.collection}",
        )


def _reason(reason: str) -> str:
    """Why a file was left out; of other kinds also which are read."""
    from appliance.serve.documents.walking import OTHER_KIND

    return f"{reason} (read are {_KINDS})" if reason == OTHER_KIND else reason


def _told(found: Status) -> dict[str, Any]:
    return {
        "collection": found.collection,
        "folder": found.folder,
        "read": found.read,
        "passages": found.passages,
        "in_parts": found.in_parts,
        "search": found.search,
        "indexed": found.updated,
        "stale": found.stale,
        "bytes": found.bytes,
        "protected": False,
    }


def _passage(passage: Passage) -> dict[str, Any]:
    return asdict(passage) | {"address": passage.address}


def _place(passage: Passage) -> str:
    page = f", page {passage.page}" if passage.page is not None else ""
    heading = f", {_cut(passage.heading, 30)}" if passage.heading else ""
    return f"{_cut(passage.file, 36)}{page}{heading}"


def _by(embedder: str) -> str:
    return f"keywords and {embedder}" if embedder else "keywords only"


def _cut(text: str, most: int) -> str:
    """The end of a long path says more than its beginning."""
    return text if len(text) <= most else "..." + text[3 - most :]


def _wrapped(face: Face, text: str, *, lines: int | None = None) -> None:
    for line in textwrap.wrap(
        text, _WIDE, initial_indent="  ", subsequent_indent="  ", max_lines=lines, placeholder=" ..."
    ):
        face.say(line)
