"""Specs of jobs, completed and checked before they are started."""

from __future__ import annotations

from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.data import store
from appliance.models import importing, registry


def checked(home: Home, spec: dict[str, Any]) -> dict[str, Any]:
    """The spec of a training whose dataset and base are there and whose name is free."""
    dataset = store.get(home, spec["dataset"], spec.get("version"))
    registry.get(home, spec["base"])
    if name := spec.get("name"):
        importing.check_model_name(name)
        registry.check_free(home, name)
    return spec | {"version": dataset.version}  # a resumed run must not take a version imported since


def evaluation_spec(
    home: Home, name: str, *, against: str | None, dataset: str | None, split: str, limit: int | None
) -> dict[str, Any]:
    """The spec for judging `name` with what belongs to it: its base and its GGUF files.

    Raises:
        ConfigWrong: no dataset was given and the model names none.
    """
    model = registry.get(home, name)
    registry.check_alone(model)
    chain = registry.lineage(home, name)
    data = dataset or next((step.dataset for step in chain if step.dataset), None)
    if data is None:
        raise ConfigWrong(f"{name} was not trained here, so it names no dataset.", "Add --dataset NAME.")
    reference = against or next((step.name for step in chain[1:] if step.kind == "base"), None)
    files = [other.name for other in registry.models(home) if other.kind == "gguf" and other.parent == name]
    found = store.get(home, data)
    names = [reference, name, *(files if model.trained else [])]
    return {
        "models": list(dict.fromkeys(part for part in names if part)),
        "against": reference,
        "dataset": found.name,
        "version": found.version,
        "split": split,
        "limit": limit,
    }
