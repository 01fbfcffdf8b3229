"""The proven files that are registered: looked up before work, entered after proof.

Beside each file lies its proof, NAME.proof.json, which says by SHA-256 what it speaks of; the two
travel together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.files import move_in, sha256_file, write_json
from appliance.core.job import Job
from appliance.core.reading import size_of
from appliance.models import registry
from appliance.models.registry import Model
from quantize.convert import CONVERTER
from quantize.header import Gguf
from quantize.limits import Limits
from quantize.origin import Origin
from quantize.recipe import Recipe, ladder

_FORMAT = 1  # of a proof file
_MAKERS = ("cloister", "gguf", "llama-cpp-python")


def check_names(job: Job, origin: Origin, recipes: Iterable[Recipe]) -> None:
    """Check that the names of the files to come are free, or taken by files of the same origin.

    Raises:
        ConfigWrong: one is taken.
    """
    for recipe in recipes:
        old = _registered(job, origin, recipe)
        if old and (old.kind != "gguf" or old.facts.get("source_sha256") != origin.sha256):
            raise _taken(old.name)


def proven(job: Job, origin: Origin, asked: Recipe, bounds: Limits) -> dict[str, Any] | None:
    """The registered file that answers for `asked`: whole, same origin, made and proven by the same versions,
    same limits all the way up."""
    rungs = [asked] if asked.kind == "F16" else ladder(asked)
    for place, recipe in enumerate(rungs):
        model = _registered(job, origin, recipe)
        if model is None or model.facts.get("source_sha256") != origin.sha256 or not same_makers(model):
            continue
        proof, told = model.facts["proof"], model.facts.get("recipe")  # ours, since the origin is the same
        stepped = proof.get("stepped_up", {})
        missed = [stepped.get(lower.label, {}).get("limits") for lower in rungs[:place]]
        if told != recipe.as_dict() or missed != [asdict(bounds[lower.kind]) for lower in rungs[:place]]:
            continue
        if recipe.kind == "F16" and "served" not in proof:  # proven before this was asked
            continue
        limits = {recipe.kind: proof["limits"]} if recipe.kind != "F16" else proof["limits"]
        if any(limit != asdict(bounds[kind]) for kind, limit in limits.items()):
            continue
        if model.path.is_file() and sha256_file(model.path) == model.sha256:
            if not proof_path(model).is_file():
                write_proof(model)
            return entry(model, asked.kind, reused=True)
    return None


def publish(
    job: Job,
    origin: Origin,
    recipe: Recipe,
    asked: Recipe,
    draft: Path,
    header: Gguf,
    proof: dict[str, Any],
    serving: dict[str, Any],
) -> dict[str, Any]:
    """Move the proven `draft` among the models, its proof beside it, then register it.

    Where the same file is registered already, this proof takes the place of its old one.

    Raises:
        ConfigWrong: the name is taken by a file with other content.
    """
    model, name, sha256 = origin.model, origin.name(recipe), sha256_file(draft)
    old = _registered(job, origin, recipe)
    check_same(old, sha256)
    proof, serving = valid(proof), valid(serving)
    target = moved_in(job, name, draft)
    made = Model(
        name=name,
        kind="gguf",
        path=target,
        sha256=sha256,
        size=size_of(target),
        job=job.id,
        parent=model.name,
        dataset=model.dataset,
        facts={
            "type": recipe.kind,
            "recipe": recipe.as_dict(),
            "task": model.facts.get("task"),
            "privacy": model.facts.get("privacy"),
            "proof": proof,
            "proof_file": f"{name}.proof.json",
            "serving": serving,
            "bits_per_weight": round(header.bits_per_weight, 3),
            "histogram": header.histogram,
            "source_sha256": origin.sha256,
            "versions": makers(),
        },
    )
    return entry(enter(job, made), asked.kind, reused=False)


def enter(job: Job, made: Model) -> Model:
    """Write the proof of a file that lies in its place, and register the file or its new proof."""
    write_proof(made)
    return registry.renew(job.home, registry.add(job.home, made, who=job.who), made.facts, who=job.who)


def makers() -> dict[str, Any]:
    """The versions of what makes and proves a file here."""
    return {**{name: version(name) for name in _MAKERS}, "converter": CONVERTER}


def same_makers(model: Model) -> bool:
    """Whether a file was made and proven by the converter and the llama.cpp that are here now.

    cloister's own version does not count: the converter has one of its own.
    """
    told, now = model.facts.get("versions") or {}, makers()
    return all(told.get(name) == now[name] for name in now if name != "cloister")


def check_same(old: Model | None, sha256: str) -> None:
    """Check that what is to be published is, byte for byte, what is registered under its name, if anything.

    Raises:
        ConfigWrong: it is not.
    """
    if old is None or old.sha256 == sha256:
        return
    if same_makers(old):
        raise _taken(old.name)
    raise ConfigWrong(
        f"{old.name} was made by other versions, and these make another file of the same model.",
        "Import or train the source under another name; the old file stays as it is.",
    )


def valid(value: Any) -> Any:
    """`value` for JSON, which has no word for what is no finite number: null."""
    if isinstance(value, dict):
        return {key: valid(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [valid(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def moved_in(job: Job, name: str, draft: Path) -> Path:
    """Move a proven draft among the models, durably."""
    target = job.home.models / name / f"{name}.gguf"
    target.parent.mkdir(mode=0o700, exist_ok=True)
    move_in(draft, target)
    return target


def proof_path(model: Model) -> Path:
    """Where the proof of a registered file lies."""
    return model.path.with_name(f"{model.name}.proof.json")


def write_proof(model: Model) -> None:
    """Write the proof of a file that is about to be registered beside it."""
    facts = model.facts
    told = ("type", "recipe", "bits_per_weight", "histogram", "source_sha256", "serving", "proof", "versions")
    document = {"format": _FORMAT, "name": model.name, "sha256": model.sha256, "size": model.size}
    write_json(proof_path(model), {**document, **{key: facts.get(key) for key in told}})


def entry(model: Model, asked: str, *, reused: bool) -> dict[str, Any]:
    """One item of the job's result; `proof` has the path of its file added."""
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
        "recipe": facts["recipe"],
        "serving": facts["serving"],
        "proof": {**facts["proof"], "path": str(proof_path(model))},
        "reused": reused,
    }


def _registered(job: Job, origin: Origin, recipe: Recipe) -> Model | None:
    try:
        return registry.get(job.home, origin.name(recipe))
    except NotFound:
        return None


def _taken(name: str) -> ConfigWrong:
    return ConfigWrong(
        f"There is already another model named {name}.", "Import or train the source under another name."
    )
