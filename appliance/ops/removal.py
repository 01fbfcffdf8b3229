"""What goes when a model is removed, and what still needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from appliance.core.db import reading
from appliance.core.errors import Busy, ConfigWrong
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.models import registry, removal
from appliance.models.registry import Model
from appliance.ops import jobs
from appliance.ops.jobs import JobView
from appliance.serve import routes

_NEWEST = 200  # jobs looked at in full; of older ones only those that run


@dataclass(frozen=True, kw_only=True)
class Removal:
    """`files` of `size` bytes that go with `model`, and the number of its `reports` that count no more."""

    model: Model
    files: int
    size: int
    reports: int


def plan_removal(home: Home, name: str) -> Removal:
    """What would go with the model `name`. Changes nothing.

    Raises:
        NotFound: there is none. Busy: a running job uses it. ConfigWrong: another model was made from it, or
            a route leads to it.
    """
    model = registry.get(home, name)
    with reading(home) as link:
        removal.check_childless(link, name)
        reports = link.execute("SELECT COUNT(*) FROM reports WHERE model = ?", (name,)).fetchone()[0]
    for route in routes.load(home).values():
        if name in (route.a, route.b):
            raise ConfigWrong(
                f"The route {route.name} leads to {name}.",
                f"Remove that first: cloister route remove {route.name}.",
            )
    for job in [*jobs.jobs(home, _NEWEST), *jobs.older(home, _NEWEST)[0]]:
        if job.state in ("running", "waiting") and _uses(job, model):
            raise Busy(
                f"Job {job.id} ({job.title}) uses {name}.",
                f"Wait for its end, or stop it: cloister job stop {job.id}.",
            )
    folder = removal.own_folder(home, model)
    files = [file for file in folder.rglob("*") if file.is_file()] if folder else []
    return Removal(
        model=model, files=len(files), size=sum(file.stat().st_size for file in files), reports=reports
    )


def remove_model(home: Home, name: str, *, who: str) -> Removal:
    """Remove a model; see appliance/models/removal.py. Raises as `plan_removal`."""
    planned = plan_removal(home, name)
    removal.remove(home, planned.model, who=who)
    return planned


def _uses(job: JobView, model: Model) -> bool:
    """Whether a job names the model; a running endpoint says which files it serves."""
    try:
        spec = json.loads(read_bytes(job.folder / "spec.json"))["spec"]
    except (OSError, ValueError, KeyError):
        spec = {}
    named = set(words_of(spec))
    if job.kind != "serve":
        return model.name in named
    if not job.last:  # not yet known: what it was asked for may stand for this file
        return model.kind in ("gguf", "lora") or model.name in named
    ready = next((event for event in reversed(job.events) if event["event"] == "ready"), {})
    return model.name in named | set(job.last.get("names", ())) | set(ready.get("models", ()))


def words_of(value: Any) -> Iterator[str]:
    """Every text in a spec."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from words_of(part)
    elif isinstance(value, list):
        for part in value:
            yield from words_of(part)
