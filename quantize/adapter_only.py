"""An adapter as a small GGUF of its own, for a base that stands at the other place already.

Proven on the base's F16 file: both together, in llama.cpp, are what peft computes in transformers. Such a
file is entered as kind "lora": it cannot be served or judged alone.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong, NotFound, ProofFailed
from appliance.core.files import need_room, sha256_file
from appliance.core.job import Job
from appliance.core.reading import size_of
from appliance.models import registry
from appliance.models.registry import Model
from quantize.convert import convert
from quantize.foreign import check_adapter_gguf
from quantize.header import read_gguf
from quantize.limits import Parity, limits_changed, limits_with
from quantize.lora import Adapter
from quantize.lora_gguf import write_adapter
from quantize.origin import Origin, open_origin
from quantize.proving import prove, start_reference, strings_for
from quantize.shelf import check_same, enter, makers, moved_in, same_makers, valid
from quantize.worksite import worksite

_LOGITS = 3 * 128_000_000


def adapter_file(job: Job, name: str, limits: dict[str, dict[str, float]] | None = None) -> dict[str, Any]:
    """Make, prove and register the LoRA GGUF of the adapter `name`; one entry as shelf.entry has them.

    Raises:
        ConfigWrong: it is no adapter, or its file's name is taken. NotFound: no such model.
        ModelRejected: it cannot be converted with proof. ProofFailed: the file is not the adapter.
    """
    origin = open_origin(job.home, name)
    if origin.adapter is None:
        raise ConfigWrong(f"{name} is no adapter.", f"Make whole files of it: cloister quantize {name}.")
    title = f"{name}-lora"
    old = _ours(job, origin, title)
    bounds = limits_with(limits, origin.plan.arch)
    bound = bounds["F16"]
    if not isinstance(bound, Parity):
        raise ConfigWrong("The limit of F16 is none against transformers.", "See docs/decisions.")
    same = old is not None and same_makers(old) and old.facts["proof"]["limits"]["F16"] == asdict(bound)
    if old is not None and same and _whole(old):
        job.log(f"{title} is there, proven from the same source; reused.")
        return _entry(old, reused=True)
    with worksite(job) as work:
        return _made(
            job, origin, origin.adapter, title, work, bound, limits_changed(bounds, ["F16"], origin.plan.arch)
        )


def _made(
    job: Job,
    origin: Origin,
    adapter: Adapter,
    title: str,
    work: Path,
    bound: Parity,
    changed: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    need_room(work, 2 * origin.plan.parameters + _LOGITS)
    draft, base, strings = work / "adapter.gguf", work / "F16.gguf", strings_for(job.home, origin)
    child = start_reference(origin, strings, work / "reference.npy")
    try:
        convert(
            origin.checkpoint,
            base,
            "F16",
            name=origin.base,
            progress=lambda done, total: job.progress("convert the base to F16", done, total),
        )
        write_adapter(adapter, origin.plan, draft, name=title, facts=origin.facts)
        check_adapter_gguf(draft, base)
        job.progress("compute with transformers", 0, 1)
        wanted = child.result()
    finally:
        child.close()
    job.progress("prove against transformers", 0, 1)
    found, faults = prove(origin, "F16", bound, strings, wanted, base, work / "reference.npy", adapter=draft)
    job.progress("prove against transformers", 1, 1)
    if faults:
        raise ProofFailed(
            f"The adapter's file on its base is not {origin.model.name}: {'; '.join(faults)}.",
            "Nothing was registered. Quantise the merged model instead.",
        )
    proof = {
        "against": "transformers",
        "base": origin.base,
        "tokens": found["tokens"],
        "template": found["template"],
        "logits": {"F16": found["logits"]},
        "served": found["served"],
        "limits": {"F16": asdict(bound)},
        "verdict": "PASS",
    }
    if changed:
        proof["limits_changed"] = changed
    return _publish(job, origin, title, draft, proof)


def _publish(job: Job, origin: Origin, title: str, draft: Path, proof: dict[str, Any]) -> dict[str, Any]:
    header = read_gguf(draft)
    check_same(_ours(job, origin, title), sha256_file(draft))  # somebody may have taken the name meanwhile
    target = moved_in(job, title, draft)
    made = Model(
        name=title,
        kind="lora",
        path=target,
        sha256=sha256_file(target),
        size=size_of(target),
        job=job.id,
        parent=origin.model.name,
        dataset=origin.model.dataset,
        facts={
            "type": "F32",
            "task": origin.model.facts.get("task"),
            "privacy": origin.model.facts.get("privacy"),
            "proof": valid(proof),
            "proof_file": f"{title}.proof.json",
            "bits_per_weight": round(header.bits_per_weight, 3),
            "histogram": header.histogram,
            "source_sha256": origin.sha256,
            "versions": makers(),
        },
    )
    return _entry(enter(job, made), reused=False)


def _entry(model: Model, *, reused: bool) -> dict[str, Any]:
    facts = model.facts
    return {
        "type": "LoRA",
        "asked": "LoRA",
        "name": model.name,
        "path": str(model.path),
        "size": model.size,
        "sha256": model.sha256,
        "bits_per_weight": facts["bits_per_weight"],
        "histogram": facts["histogram"],
        "proof": {**facts["proof"], "path": str(model.path.with_name(facts["proof_file"]))},
        "reused": reused,
    }


def _ours(job: Job, origin: Origin, title: str) -> Model | None:
    """The file of this adapter that is registered already.

    Raises:
        ConfigWrong: its name is taken by something else.
    """
    try:
        old = registry.get(job.home, title)
    except NotFound:
        return None
    if old.kind != "lora" or old.facts.get("source_sha256") != origin.sha256:
        raise ConfigWrong(
            f"There is already another model named {title}.", "Train the adapter under another name."
        )
    return old


def _whole(model: Model) -> bool:
    return model.path.is_file() and sha256_file(model.path) == model.sha256
