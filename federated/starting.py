"""The adapter that a federation begins with, and what it becomes: an ordinary adapter of the registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from appliance.core.errors import ConfigWrong
from appliance.core.files import sha256_folder
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.core.reading import local, size_of
from appliance.models import registry
from appliance.models.load import load_torch
from appliance.models.registry import Model
from appliance.security.people import mode
from appliance.train.adapt import adapt
from appliance.train.result import save_weights
from federated.description import Federation
from federated.layout import Array, Layout, parted
from federated.training import settings_of, trained


@dataclass(frozen=True, kw_only=True)
class Start:
    """The base with a fresh adapter: `names` maps the layout's names to parameters, `vector` holds them."""

    base: Model
    model: Any
    layout: Layout
    names: dict[str, Any]
    vector: Array


def fresh(home: Home, federation: Federation) -> Start:
    """What every site begins with.

    Raises:
        NotFound, ModelRejected: the base is not here, or damaged. ConfigWrong: it is another one, or makes
            another adapter.
    """
    base = registry.intact(home, federation.model.base)[0]
    if base.sha256 != federation.model.sha256:
        raise ConfigWrong(
            f"The base {base.name} here is not the one that was agreed on: its SHA-256 differs.",
            "Import the agreed one under that name.",
        )
    loaded, _ = load_torch(local(base.path))
    model = adapt(loaded, settings_of(federation))
    layout, names = trained(model)
    if layout.sha256() != federation.model.layout:
        raise ConfigWrong("The adapter here has other shapes than agreed.", "Install the agreed versions.")
    vector = np.concatenate([names[name].detach().float().numpy().reshape(-1) for name, _ in layout.shapes])
    return Start(base=base, model=model, layout=layout, names=names, vector=vector)


def released(
    job: Job, federation: Federation, start: Start, adapter: Array, *, name: str, facts: dict[str, Any]
) -> str:
    """Enter the adapter after the last round in the registry; returns its name.

    Raises:
        NoRoom: the disk is full.
    """
    import torch

    with torch.no_grad():
        for part, values in parted(start.layout, adapter).items():
            start.names[part].copy_(torch.from_numpy(values.copy()))
    folder = job.home.models / name
    kind = save_weights(start.model, folder, words=local(start.base.path), settings=settings_of(federation))
    entry = registry.add(
        job.home,
        Model(
            name=name,
            kind=kind,
            path=folder,
            sha256=sha256_folder(folder),
            size=sum(size_of(file) for file in folder.iterdir()),
            job=job.id,
            parent=start.base.name,
            facts={"people": mode.statement(job.home), **facts},
        ),
        who=job.who,
    )
    return entry.name
