"""From a registered model to proven GGUF files: convert, prove, quantise, prove, register.

Drafts lie in the job's folder. A file moves among the models when it is proven and its registry
entry comes last, so that a job killed at any moment leaves nothing half-made listed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from appliance.core.db import transaction
from appliance.core.errors import NoRoom, ProofFailed
from appliance.core.files import need_room
from appliance.core.job import Job
from appliance.models.task import task_from
from appliance.security import audit
from quantize import shelf
from quantize.calibration import Calibration, declared, shipped
from quantize.climb import BITS, Climb, measured
from quantize.convert import convert
from quantize.header import read_gguf
from quantize.limits import Limits, Parity, limits_changed, limits_with
from quantize.origin import Origin, open_origin
from quantize.overrides import check_overrides
from quantize.proving import patience, prove, start_reference, strings_for
from quantize.recipe import Recipe, recipe_from
from quantize.worksite import worksite

LARGEST_F32 = 3_000_000_000  # bytes; beyond, no F32 draft is written and F16 carries the proof alone
_BITS = {"F32": 32.5, "F16": 16.5} | BITS
_LOGITS = 3 * 128_000_000
_F16 = Recipe(kind="F16")


def quantize_model(
    job: Job,
    name: str,
    types: Sequence[str],
    *,
    texts: Sequence[str] = (),
    limits: dict[str, dict[str, float]] | None = None,
    spec: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Make, prove and register F16 and the asked `types` of the base or adapter `name`.

    Returns one entry per type (shelf.entry); a type too far from F16 is answered by the next rung.
    `texts` are further strings whose token ids must agree; `spec` may hold tensor_types, output_type,
    embedding_type, imatrix and calibration (job.py). What was proven before is reused.

    Raises:
        NotFound: no such model or calibration file.
        ConfigWrong: an unknown type or limit, or a name that something else has.
        ModelRejected: the model cannot be converted with proof.
        NoRoom: the disk cannot take the files.
        ProofFailed: the files are not, provably, the model.
    """
    spec = spec or {}
    origin = open_origin(job.home, name)
    bounds = limits_with(limits, origin.plan.arch)
    calibration = _calibration(job, name, spec.get("calibration"))
    asked = [recipe_from(kind, spec, calibration.sha256) for kind in types]
    recipes = list(dict.fromkeys([_F16, *asked]))
    check_overrides(job.home, origin, recipes)
    shelf.check_names(job, origin, recipes)
    done = {recipe: shelf.proven(job, origin, recipe, bounds) for recipe in recipes}
    for recipe, old in done.items():
        if old:
            job.log(f"{recipe.label}: {old['name']} is there, proven from the same source; reused.")
    if texts:
        done[_F16] = None
    if not all(done.values()):
        with worksite(job) as work:
            _Run(job, origin, work, bounds, list(texts), calibration).make(done)
    return [entry for entry in done.values() if entry]


def _calibration(job: Job, name: str, path: str | None) -> Calibration:
    """Our own texts, or the file that the operator declares public, which the audit log keeps."""
    if not path:
        return shipped()
    found = declared(job.home, Path(path))
    with transaction(job.home) as link:
        told = {"file": Path(path).name, "sha256": found.sha256, "declared": "public"}
        audit.record(link, who=job.who, what="quantize.calibration", target=name, **told)
    return found


class _Run:
    """What the steps of one run share."""

    def __init__(
        self,
        job: Job,
        origin: Origin,
        work: Path,
        bounds: Limits,
        texts: list[str],
        calibration: Calibration,
    ) -> None:
        self.job, self.origin, self.work, self.bounds = job, origin, work, bounds
        self.calibration = calibration
        self.strings = strings_for(job.home, origin, texts)
        self.weights = origin.plan.parameters
        self.drafts = ("F16", "F32") if self.weights * 4 <= LARGEST_F32 else ("F16",)
        self.patience = patience(origin)
        self.told = 0.0

    def make(self, done: dict[Recipe, dict[str, Any] | None]) -> None:
        """Fill in the entries of `done` that are None."""
        missing = [recipe for recipe, entry in done.items() if entry is None]
        drafts = self.drafts if _F16 in missing else ()
        bits = sum(_BITS[kind] for kind in {*(recipe.kind for recipe in missing), *drafts})
        need_room(self.work, int(self.weights * bits / 8) + _LOGITS)
        _need_memory(self.weights * 4 + _LOGITS)
        child = start_reference(self.origin, self.strings, self.work / "reference.npy")
        try:
            for kind in drafts:
                self._convert(kind)
            self.job.progress("compute with transformers", 0, 1)
            wanted = child.result()
        finally:
            child.close()
        self.job.progress("compute with transformers", 1, 1)
        f16 = done[_F16] or self._f16(wanted)
        done[_F16] = f16
        climb = Climb(
            job=self.job,
            origin=self.origin,
            work=self.work,
            bounds=self.bounds,
            patience=self.patience,
            tell=self._tell,
            f16=f16,
            windows=wanted["windows"],
            calibration=_in_form(self.calibration, self.origin.model.facts.get("task")),
        )
        for recipe in missing:
            if recipe != _F16:
                done[recipe] = climb.answer(recipe)

    def _draft(self, kind: str) -> Path:
        return self.work / f"{kind}.gguf"

    def _convert(self, kind: str) -> None:
        stage = f"{'merge and convert' if self.origin.adapter else 'convert'} to {kind}"
        convert(
            self.origin.checkpoint,
            self._draft(kind),
            kind,
            name=self.origin.model.name,
            adapter=self.origin.adapter,
            facts=self.origin.facts,
            progress=lambda done, total: self._tell(stage, done, total),
        )

    def _tell(self, stage: str, done: float, total: float) -> None:
        """Progress, at most five times a second."""
        if done >= total or time.monotonic() - self.told > 0.2:
            self.told = time.monotonic()
            self.job.progress(stage, done, total)

    def _f16(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Prove the drafts and publish F16; F32 shows faults that F16's rounding would hide."""
        proof: dict[str, Any] = {"against": "transformers", "logits": {}}
        limits = {kind: limit for kind in self.drafts if isinstance(limit := self.bounds[kind], Parity)}
        faults: list[str] = []
        for number, kind in enumerate(self.drafts):
            self.job.progress("prove against transformers", number, len(self.drafts))
            theirs = self.work / "reference.npy"
            figures, wrong = prove(
                self.origin, kind, limits[kind], self.strings, wanted, self._draft(kind), theirs
            )
            proof["logits"][kind] = figures.pop("logits")
            proof |= figures
            faults += wrong
        self.job.progress("prove against transformers", 1, 1)
        if faults:
            raise ProofFailed(
                f"The converted file is not {self.origin.model.name}: {'; '.join(faults)}.",
                "Nothing was registered. Use the base's own tokenizer and template, or another base.",
            )
        proof |= {"limits": {kind: asdict(limit) for kind, limit in limits.items()}, "verdict": "PASS"}
        if changed := limits_changed(self.bounds, limits, self.origin.plan.arch):
            proof["limits_changed"] = changed
        draft = self._draft("F16")
        serving = measured(draft, "F16", self.patience)
        return shelf.publish(self.job, self.origin, _F16, _F16, draft, read_gguf(draft), proof, serving)


def _need_memory(size: int) -> None:
    """transformers holds the model in float32 while it computes the reference."""
    free = psutil.virtual_memory().available
    if free < size:
        raise NoRoom(
            f"Proving this model needs {size / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free.",
            "Stop other programs, or quantise on a larger machine.",
        )


def _in_form(calibration: Calibration, task: dict[str, Any] | None) -> Calibration:
    """Our own chats in the form that the model was tuned on."""
    form = task_from(task) if task else None
    if form is None or not calibration.chats:
        return calibration
    labels = form.labels
    chats = tuple(
        (form.question(question), f" {labels[i % len(labels)]}" if labels else f" {answer}")
        for i, (question, answer) in enumerate(calibration.chats)
    )
    return replace(calibration, chats=chats)
