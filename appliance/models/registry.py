"""What this site has: bases, adapters and GGUF files, each with where it came from."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong, ModelRejected, NotFound
from appliance.core.events import now
from appliance.core.files import sha256_file, sha256_folder
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.people import guard

_WORDS = ("status",)  # `cloister serve status` asks what is served
KINDS = ("base", "adapter", "tuned", "gguf", "lora")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One registry entry. `path` is a folder (base, adapter, tuned) or a file (gguf, lora).

    "lora" is an adapter's own GGUF file, for the GGUF of its base. "tuned" is a whole model whose own
    weights were trained here; its parent is the base it was.
    """

    name: str
    kind: str
    path: Path
    sha256: str
    size: int
    job: str = ""
    parent: str | None = None
    dataset: str | None = None
    created: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether its folder is a model by itself, not an adapter for one."""
        return self.kind in ("base", "tuned")

    @property
    def trained(self) -> bool:
        """Whether it came out of a training run here."""
        return self.kind in ("adapter", "tuned")


def add(home: Home, model: Model, *, who: str, right: str = "") -> Model:
    """Enter `model`, with its audit line; entering the same thing again changes nothing.

    `right`: the action of the table of rights that this is, where no job's signed order has said so.

    Raises:
        ConfigWrong: the name is taken by something else, or is a word of the command line.
        NotAllowed: the role of `who` does not allow `right`.
    """
    with transaction(home) as link:
        if right:
            guard.spend(link, home, who, right, model.name)
        old = link.execute("SELECT * FROM models WHERE name = ?", (model.name,)).fetchone()
        if old is not None:
            if old["sha256"] == model.sha256 and old["kind"] == model.kind:
                return _model(old)
            raise ConfigWrong(f"There is already a model named {model.name}.", "Choose another --name.")
        check_word(model.name)
        created = model.created or now()
        link.execute(
            "INSERT INTO models (name, kind, created, job, parent, dataset, path, sha256, size, facts)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                model.name,
                model.kind,
                created,
                model.job,
                model.parent,
                model.dataset,
                str(model.path),
                model.sha256,
                model.size,
                json.dumps(model.facts),
            ),
        )
        audit.record(link, who=who, what="model.add", target=model.name, kind=model.kind, sha256=model.sha256)
    return get(home, model.name)


def renew(home: Home, model: Model, facts: dict[str, Any], *, who: str) -> Model:
    """`model`, whose facts are now `facts` (the same file, proven again), with an audit line if they differ.

    Raises:
        NotFound: the entry is gone, or speaks of another file.
    """
    if model.facts == json.loads(json.dumps(facts)):
        return model
    with transaction(home) as link:
        done = link.execute(
            "UPDATE models SET facts = ? WHERE name = ? AND sha256 = ?",
            (json.dumps(facts), model.name, model.sha256),
        )
        if done.rowcount != 1:
            raise NotFound(f"There is no model named {model.name}.", "See `cloister model list`.")
        audit.record(link, who=who, what="model.prove", target=model.name, sha256=model.sha256)
    return get(home, model.name)


def check_free(home: Home, name: str, job: str = "") -> None:
    """Check that no model has this name, before work is put into one; one made by `job` may.

    Raises:
        ConfigWrong: there is one.
    """
    with reading(home) as link:
        taken = link.execute(
            "SELECT 1 FROM models WHERE name = ? AND job != ?", (name, job or "-")
        ).fetchone()
    if taken:
        raise ConfigWrong(f"There is already a model named {name}.", "Choose another --name.")


def check_word(name: str) -> None:
    """Check that the name of a model or route means nothing else on the command line.

    Raises:
        ConfigWrong: it does.
    """
    if name in _WORDS:
        raise ConfigWrong(
            f"Nothing can be named {name}: `cloister serve {name}` has a meaning already.",
            "Choose another name.",
        )


def check_alone(model: Model) -> None:
    """Check that a model can be run by itself.

    Raises:
        ConfigWrong: it is an adapter's own file.
    """
    if model.kind == "lora":
        raise ConfigWrong(
            f"{model.name} is the file of an adapter, of no use without its base.",
            f"Take {model.parent}, which it was made from.",
        )


def get(home: Home, name: str) -> Model:
    """The entry called `name`.

    Raises:
        NotFound: there is none.
    """
    with reading(home) as link:
        row = link.execute("SELECT * FROM models WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"There is no model named {name}.", "See `cloister model list`.")
    return _model(row)


def intact(home: Home, name: str) -> list[Model]:
    """The entry and its ancestors, whose files are still those that were entered.

    Raises:
        NotFound: there is none. ModelRejected: files were changed or are gone.
    """
    chain = lineage(home, name)
    for model in chain:
        digest = sha256_folder if model.path.is_dir() else sha256_file
        if not model.path.exists() or digest(model.path) != model.sha256:
            raise ModelRejected(
                f"The files of {model.name} are not those that were entered in the registry.",
                "Restore them from a backup, or make the model again under another name.",
            )
    return chain


def models(home: Home) -> list[Model]:
    """All entries, oldest first."""
    with reading(home) as link:
        return [_model(row) for row in link.execute("SELECT * FROM models ORDER BY created, name")]


def lineage(home: Home, name: str) -> list[Model]:
    """The entry and its ancestors, itself first."""
    chain = [get(home, name)]
    while chain[-1].parent is not None:
        chain.append(get(home, chain[-1].parent))
    return chain


def _model(row: sqlite3.Row) -> Model:
    return Model(
        name=row["name"],
        kind=row["kind"],
        path=Path(row["path"]),
        sha256=row["sha256"],
        size=row["size"],
        job=row["job"],
        parent=row["parent"],
        dataset=row["dataset"],
        created=row["created"],
        facts=json.loads(row["facts"]),
    )
