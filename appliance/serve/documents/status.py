"""What a collection holds, what was left out and why, and how it is searched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from appliance.core.errors import ApplianceError
from appliance.core.home import Home
from appliance.core.reading import size_of
from appliance.serve.documents import index
from appliance.serve.documents.collections import found_index
from appliance.serve.documents.indexing import stale
from appliance.serve.documents.retrieve import KEYWORDS


@dataclass(frozen=True, kw_only=True)
class Status:
    """One collection. `stale`: files that differ from the folder now; None: the folder is away.

    `in_parts`: passages that were too long for the embedding model and are embedded in parts.
    """

    collection: str
    folder: str
    updated: str
    search: str
    passages: int
    in_parts: int
    bytes: int
    files: tuple[index.File, ...]
    stale: int | None

    @property
    def read(self) -> int:
        """How many files can be cited."""
        return sum(not file.reason for file in self.files)

    @property
    def left_out(self) -> dict[str, int]:
        """Why files were left out, and how many for each reason."""
        return dict(Counter(file.reason for file in self.files if file.reason).most_common())


def status(home: Home, collection: str) -> Status:
    """What is known of a collection.

    Raises:
        NotFound: there is none. ApplianceError: its index is damaged.
    """
    path = found_index(home, collection)
    with index.looking(path) as link:
        about, files, long = index.meta(link), tuple(index.files(link)), index.in_parts(link)
    try:
        changed: int | None = stale(home, collection)
    except ApplianceError:
        changed = None
    name = about.get("embedder_name", "")
    return Status(
        collection=collection,
        folder=about["folder"],
        updated=about["updated"],
        search=f"keywords and {name}" if name else KEYWORDS,
        passages=sum(file.passages for file in files),
        in_parts=long,
        bytes=size_of(path),
        files=files,
        stale=changed,
    )
