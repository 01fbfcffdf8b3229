"""Collections: folders of documents that answers may cite, each with one index file.

`home.documents/NAME/index.db` holds document text; the site's own database does not. Document text is not
protected by differential privacy: what a passage says, an answer may say word for word.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.core.db import transaction
from appliance.core.errors import Busy, ConfigWrong, NotFound
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.people import guard

NOT_PROTECTED = (
    "Document text is not protected by differential privacy: answers may repeat it word for word to"
    " whoever may ask this collection."
)
_NAME = re.compile(r"[a-z0-9-]{1,40}")


def check_collection(name: str) -> str:
    """The name of a collection: a to z, 0 to 9 and "-", at most 40.

    Raises:
        ConfigWrong: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ConfigWrong(
            "A collection's name has 1 to 40 characters of a-z, 0-9 and -.", "Write it like: policies-2026"
        )
    return name


def index_path(home: Home, name: str) -> Path:
    """Where a collection's index lies, or will lie.

    Raises:
        ConfigWrong: no name of a collection.
    """
    return home.documents / check_collection(name) / "index.db"


def collections(home: Home) -> list[str]:
    """The names of the collections that can be asked."""
    return sorted(
        folder.name
        for folder in home.documents.iterdir()
        if _NAME.fullmatch(folder.name) and (folder / "index.db").is_file()
    )


def found_index(home: Home, name: str) -> Path:
    """The index of a collection that is there.

    Raises:
        NotFound: it is not. ConfigWrong: no name of a collection.
    """
    path = index_path(home, name)
    if not path.is_file():
        raise NotFound(f"There is no collection {name}.", "See `cloister docs list`.")
    return path


def remove(home: Home, name: str, *, who: str) -> None:
    """Remove a collection's index; the documents themselves stay where they are.

    Raises:
        NotFound: there is none. Busy: it is being indexed.
    """
    folder = index_path(home, name).parent
    if not folder.is_dir():  # without an index it may still hold the draft of a first job that was killed
        found_index(home, name)
    with locked(home, name):
        grave = home.documents / f".removed-{name}-{os.getpid()}"
        shutil.rmtree(grave, ignore_errors=True)
        with transaction(home) as link:
            guard.spend(link, home, who, "docs.change", name)
            audit.record(link, who=who, what="docs.remove", target=name)
            folder.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


@contextmanager
def locked(home: Home, name: str) -> Iterator[Path]:
    """The collection's folder, made if missing, for one writer at a time.

    Raises:
        Busy: another process writes it.
    """
    folder = index_path(home, name).parent
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"The collection {name} is being indexed.", "Wait for it; `cloister job list` shows it."
            ) from None
        yield folder
    finally:
        os.close(handle)
