"""The proven files that are registered: looked up before work, entered after proof."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.files import sha256_file, sync
from appliance.core.job import Job
from appliance.models import registry
from appliance.models.registry import Model
from quantize.header import Gguf
from quantize.limits import LADDER, Loss
from quantize.origin import Origin


def check_names(job: Job, origin: Origin, kinds: Iterable[str]) -> None:
    """Check that the names of the files to come are free, or taken by files of the same origin.

    Raises:
        ConfigWrong: one is taken.
    """
    for kind in kinds:
        old = _registered(job, origin, kind)
        if old and (old.kind != "gguf" or old.facts.get("source_sha256") != origin.sha256):
            raise _taken(old.name)


def proven(job: Job, origin: Origin, asked: str, bounds: dict[str, Loss]) -> dict[str, Any] | None:
    """The registered file that answers for `asked`: whole, same origin, same limits."""
    for kind in (asked, *LADDER):
        model = _registered(job, origin, kind)
        if model is None or model.facts.get("source_sha256") != origin.sha256:
            continue
        proof = model.facts["proof"]  # ours, since the origin is the same
        if kind != asked and asked not in proof.get("stepped_up", {}):
            continue
        if kind in bounds and proof["limits"] != asdict(bounds[kind]):
            continue
        if model.path.is_file() and sha256_file(model.path) == model.sha256:
            return entry(model, asked, reused=True)
    return None


def publish(
    job: Job, origin: Origin, kind: str, asked: str, draft: Path, header: Gguf, proof: dict[str, Any]
) -> dict[str, Any]:
    """Move the proven `draft` among the models, then register it.

    Raises:
        ConfigWrong: the name is taken by a file with other content.
    """
    model, name, sha256 = origin.model, origin.name(kind), sha256_file(draft)
    old = _registered(job, origin, kind)
    if old and old.sha256 != sha256:
        raise _taken(name)
    target = job.home.models / name / f"{name}.gguf"
    target.parent.mkdir(mode=0o700, exist_ok=True)
    sync(draft)
    draft.replace(target)
    sync(target.parent)
    made = Model(
        name=name,
        kind="gguf",
        path=target,
        sha256=sha256,
        size=target.stat().st_size,
        job=job.id,
        parent=model.name,
        dataset=model.dataset,
        facts={
            "type": kind,
            "task": model.facts.get("task"),
            "privacy": model.facts.get("privacy"),
            "proof": proof,
            "bits_per_weight": round(header.bits_per_weight, 3),
            "histogram": header.histogram,
            "source_sha256": origin.sha256,
        },
    )
    return entry(registry.add(job.home, made, who=job.who), asked, reused=False)


def entry(model: Model, asked: str, *, reused: bool) -> dict[str, Any]:
    """One item of the job's result."""
    facts = model.facts
    return {
        "type": facts["type"],
        "asked": asked,
        "name": model.name,
        "path": str(model.path),
        "size": model.size,
        "sha256": model.sha256,
        "bits_per_weight": facts["bits_per_weight"],
        "histogram": facts["histogram"],
        "proof": facts["proof"],
        "reused": reused,
    }


def _registered(job: Job, origin: Origin, kind: str) -> Model | None:
    try:
        return registry.get(job.home, origin.name(kind))
    except NotFound:
        return None


def _taken(name: str) -> ConfigWrong:
    return ConfigWrong(
        f"There is already another model named {name}.", "Import or train the source under another name."
    )
