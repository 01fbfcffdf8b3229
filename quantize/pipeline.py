"""From a registered model to proven GGUF files: convert, prove, quantise, prove, register.

Drafts lie in the job's folder. A file moves among the models when it is proven and its registry
entry comes last, so that a job killed at any moment leaves nothing half-made listed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from appliance.core.errors import ConfigWrong, NoRoom, ProofFailed
from appliance.core.files import need_room
from appliance.core.job import Job
from appliance.models.task import task_from
from quantize import shelf, worker
from quantize.convert import convert
from quantize.header import Gguf, read_gguf
from quantize.kernel import QUANTISED, quantize_file
from quantize.limits import LADDER, PARITY, Loss, loss_limits, shortfalls
from quantize.origin import Origin, open_origin
from quantize.reference import reference
from quantize.texts import ANSWERS, CHATS, MESSAGES, NASTY, PASSAGES
from quantize.verify import examine, judge, lose, same_words

TYPES = ("F16", *QUANTISED)
LARGEST_F32 = 3_000_000_000  # bytes; beyond, no F32 draft is written and F16 carries the proof alone
_BITS = {"F32": 32.5, "F16": 16.5, "Q4_0": 5.5, "Q4_K_M": 5.5, "Q5_K_M": 6.5, "Q6_K": 7.0, "Q8_0": 9.0}
_LOGITS = 3 * 128_000_000


def quantize_model(
    job: Job,
    name: str,
    types: Sequence[str],
    *,
    texts: Sequence[str] = (),
    limits: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Make, prove and register F16 and the asked `types` of the base or adapter `name`.

    Returns one entry per type (shelf.entry); a type too far from F16 is answered by a larger one.
    `texts` are further strings whose token ids must agree. What was proven before is reused.

    Raises:
        NotFound: no such model.
        ConfigWrong: an unknown type or limit, or a name that something else has.
        ModelRejected: the model cannot be converted with proof.
        NoRoom: the disk cannot take the files.
        ProofFailed: the files are not, provably, the model.
    """
    for kind in types:
        if kind not in TYPES:
            raise ConfigWrong(f"{kind} is not a type.", f"Choose from {', '.join(TYPES)}.")
    bounds = loss_limits(limits)
    origin = open_origin(job.home, name)
    kinds = list(dict.fromkeys(["F16", *types]))
    shelf.check_names(job, origin, kinds)
    done = {kind: shelf.proven(job, origin, kind, bounds) for kind in kinds}
    for kind, old in done.items():
        if old:
            job.log(f"{kind}: {old['name']} is there, proven from the same source; reused.")
    if texts:
        done["F16"] = None
    if not all(done.values()):
        work = job.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            _Run(job, origin, work, bounds, list(texts)).make(done)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return [entry for entry in done.values() if entry]


class _Run:
    """What the steps of one run share."""

    def __init__(
        self, job: Job, origin: Origin, work: Path, bounds: dict[str, Loss], texts: list[str]
    ) -> None:
        self.job, self.origin, self.work, self.bounds = job, origin, work, bounds
        self.strings = [*NASTY, *special_strings(origin.checkpoint.tokenizer), *MESSAGES, *PASSAGES, *texts]
        self.weights = origin.plan.parameters
        self.drafts = ("F16", "F32") if self.weights * 4 <= LARGEST_F32 else ("F16",)
        self.patience = 300 + self.weights / 1e6  # seconds for one step in a child
        self.told = 0.0

    def make(self, done: dict[str, dict[str, Any] | None]) -> None:
        """Fill in the entries of `done` that are None."""
        missing = [kind for kind, entry in done.items() if entry is None]
        drafts = self.drafts if "F16" in missing else ()
        bits = sum(_BITS[kind] for kind in {*missing, *drafts})
        need_room(self.work, int(self.weights * bits / 8) + _LOGITS)
        _need_memory(self.weights * 4 + _LOGITS)
        child = self._reference()
        try:
            for kind in drafts:
                self._convert(kind)
            self.job.progress("compute with transformers", 0, 1)
            wanted = child.result()
        finally:
            child.close()
        self.job.progress("compute with transformers", 1, 1)
        f16 = done["F16"] or self._f16(wanted)
        done["F16"] = f16
        for kind in missing:
            if kind != "F16":
                done[kind] = self._step_up(kind, Path(f16["path"]), wanted["windows"])

    def _reference(self) -> worker.Child:
        origin = self.origin
        return worker.start(
            reference,
            doing="Computing the model with transformers",
            timeout=4 * self.patience,
            base=str(origin.checkpoint.folder),
            adapter=str(origin.adapter.folder) if origin.adapter else None,
            strings=self.strings,
            chats=list(CHATS),
            answered=_answered(origin.model.facts.get("task")),
            passages=list(PASSAGES),
            logits=str(self.work / "reference.npy"),
        )

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
        faults: list[str] = []
        for number, kind in enumerate(self.drafts):
            self.job.progress("prove against transformers", number, len(self.drafts))
            read_gguf(self._draft(kind))
            logits = self.work / f"{kind}.npy"
            seen = worker.run(
                examine,
                doing=f"Opening the {kind} file in llama.cpp",
                timeout=self.patience,
                file=str(self._draft(kind)),
                strings=self.strings,
                chats=wanted["chats"],
                ends=wanted["ends"],
                windows=wanted["windows"][: wanted["compared"]],
                logits=str(logits),
            )
            figures, wrong = judge(kind, self.strings, wanted, seen, self.work / "reference.npy", logits)
            proof["logits"][kind] = figures.pop("logits")
            proof |= figures
            faults += wrong
        self.job.progress("prove against transformers", 1, 1)
        if faults:
            raise ProofFailed(
                f"The converted file is not {self.origin.model.name}: {'; '.join(faults)}.",
                "Nothing was registered. Use the base's own tokenizer and template, or another base.",
            )
        proof |= {"limits": {kind: asdict(PARITY[kind]) for kind in self.drafts}, "verdict": "PASS"}
        draft = self._draft("F16")
        return shelf.publish(self.job, self.origin, "F16", "F16", draft, read_gguf(draft), proof)

    def _step_up(self, asked: str, f16: Path, windows: list[dict[str, Any]]) -> dict[str, Any]:
        """Publish `asked`, or the next larger type that is close enough to F16."""
        stepped: dict[str, list[str]] = {}
        for kind in LADDER[LADDER.index(asked) :]:
            figures, header = self._quantise(kind, f16, windows)
            missed = shortfalls(figures, self.bounds[kind])
            if not missed:
                limits = asdict(self.bounds[kind])
                proof = {"against": "F16", "loss": figures, "limits": limits, "stepped_up": stepped}
                proof["verdict"] = "PASS"
                draft = self._draft(kind)
                return shelf.publish(self.job, self.origin, kind, asked, draft, header, proof)
            stepped[kind] = missed
            self.job.log(f"{kind} is too far from F16 ({'; '.join(missed)}); trying the next larger type.")
        reasons = "; ".join(f"{kind}: {', '.join(missed)}" for kind, missed in stepped.items())
        raise ProofFailed(
            f"No type from {asked} up is close enough to F16 ({reasons}).",
            "Serve the F16 file, or change the limits if the task's accuracy holds.",
        )

    def _quantise(self, kind: str, f16: Path, windows: list[dict[str, Any]]) -> tuple[dict[str, Any], Gguf]:
        """Make the draft of `kind`; how much it lost, and its header."""
        draft = self._draft(kind)
        size = int(self.weights * _BITS[kind] / 8)

        def watch() -> None:
            self._tell(f"quantise {kind}", min(size, draft.stat().st_size if draft.exists() else 0), size)

        self.job.progress(f"quantise {kind}", 0, size)
        worker.start(
            quantize_file,
            doing=f"Quantising to {kind}",
            timeout=self.patience,
            source=str(f16),
            target=str(draft),
            kind=kind,
        ).result(watch)
        self.job.progress(f"prove {kind}", 0, 1)
        header = read_gguf(draft)
        if not same_words(header, read_gguf(f16)):
            raise ProofFailed(
                f"The {kind} file differs from its F16 in more than its weights.", "Nothing was registered."
            )
        figures: dict[str, Any] = worker.run(
            lose,
            doing=f"Comparing {kind} with F16",
            timeout=4 * self.patience,
            file=str(draft),
            against=str(f16),
            windows=windows,
        )
        self.job.progress(f"prove {kind}", 1, 1, kld=figures["kld_mean"], bits=header.bits_per_weight)
        return figures, header


def _need_memory(size: int) -> None:
    """transformers holds the model in float32 while it computes the reference."""
    free = psutil.virtual_memory().available
    if free < size:
        raise NoRoom(
            f"Proving this model needs {size / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free.",
            "Stop other programs, or quantise on a larger machine.",
        )


def special_strings(tokenizer: dict[str, Any]) -> list[str]:
    """Strings with the tokenizer's own added tokens inside."""
    added = [entry["content"] for entry in tokenizer.get("added_tokens", [])][:16]
    return [form.replace("?", token) for token in added for form in ("?", "a ? b", "x?? y", " ?\n")]


def _answered(task: dict[str, Any] | None) -> list[tuple[list[dict[str, str]], str]]:
    """Chats with the answer that follows them, in the form that the model was tuned on."""
    form = task_from(task) if task else None
    answers = form.labels if form and form.labels else ANSWERS
    return [
        (
            [{"role": "user", "content": form.question(text) if form else text}],
            f" {answers[i % len(answers)]}",
        )
        for i, text in enumerate(MESSAGES)
    ]
