"""Takes a model out of the registry, and its files off the disk.

The entry goes first, in one transaction with its reports and the audit line; then the folder is renamed
out of the way and deleted. A kill in between leaves files that nobody sees; a mark, written before all
else, says so, and whoever removes or imports next clears them away.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.files import sync
from appliance.core.home import Home
from appliance.models.registry import Model
from appliance.security import audit
from appliance.security.people import guard

_MARK, _GRAVE = ".removing-", ".removed-"


def own_folder(home: Home, model: Model) -> Path | None:
    """The folder that holds nothing but this model; None where its files lie outside of the site's models."""
    folder = home.models / model.name
    return folder if model.path == folder or model.path.parent == folder else None


def remove(home: Home, model: Model, *, who: str) -> None:
    """Remove an entry with its reports' verdicts and its files; what was charged for it stays charged.

    A later model of the same name must not pass a gate by the reports of this one. Files that lie outside
    of the site's models stay where they are.

    Raises:
        NotFound: there is no such entry any more. ConfigWrong: another model was made from it.
        NotAllowed: two people have not agreed to it, at a site that has people.
    """
    sweep(home)
    folder = own_folder(home, model)
    if folder is not None:
        (home.models / f"{_MARK}{model.name}").touch(mode=0o600)
        sync(home.models)
    with transaction(home) as link:
        guard.spend(link, home, who, "model.remove", model.name, content=shown(model))
        check_childless(link, model.name)
        done = link.execute("DELETE FROM models WHERE name = ? AND sha256 = ?", (model.name, model.sha256))
        if done.rowcount != 1:
            raise NotFound(f"There is no model named {model.name}.", "See `cloister model list`.")
        link.execute("DELETE FROM reports WHERE model = ?", (model.name,))
        audit.record(
            link, who=who, what="model.remove", target=model.name, kind=model.kind, sha256=model.sha256
        )
    sweep(home)


def shown(model: Model) -> dict[str, str]:
    """What two people agree to."""
    return {"model": model.name, "kind": model.kind, "sha256": model.sha256}


def check_childless(link: sqlite3.Connection, name: str) -> None:
    """Check that no other model was made from `name`.

    Raises:
        ConfigWrong: one was.
    """
    rows = link.execute("SELECT name FROM models WHERE parent = ? ORDER BY created", (name,)).fetchall()
    if rows:
        children = ", ".join(row["name"] for row in rows)
        raise ConfigWrong(
            f"{children} {'was' if len(rows) == 1 else 'were'} made from {name}.",
            f"Remove that first: cloister model remove {rows[-1]['name']}.",
        )


def sweep(home: Home) -> None:
    """Delete the files of models that are no longer entered; cheap when there are none."""
    for mark in list(home.models.glob(f"{_MARK}*")):
        name = mark.name.removeprefix(_MARK)
        folder, grave = home.models / name, home.models / f"{_GRAVE}{name}"
        with transaction(home) as link:  # nobody removes or enters a model meanwhile
            there = link.execute("SELECT 1 FROM models WHERE name = ?", (name,)).fetchone()
            if there is None and folder.exists():
                shutil.rmtree(grave, ignore_errors=True)
                folder.rename(grave)
            mark.unlink(missing_ok=True)
    for grave in home.models.glob(f"{_GRAVE}*"):
        shutil.rmtree(grave, ignore_errors=True)
