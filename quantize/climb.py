"""Quantised files of one proven F16: each made, compared with it, and stepped up when too far away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from appliance.core.errors import ProofFailed
from appliance.core.files import sha256_file
from appliance.core.job import Job
from appliance.core.reading import local
from quantize import shelf, worker
from quantize.calibration import Calibration
from quantize.header import Gguf, read_gguf
from quantize.imatrix import collect
from quantize.kernel import quantize_file
from quantize.limits import Limits, limits_changed, shortfalls
from quantize.origin import Origin
from quantize.recipe import Recipe, ladder
from quantize.serving import measure
from quantize.verify import lose, same_words

BITS = {"IQ4_XS": 5.5, "Q4_0": 5.5, "Q4_K_M": 5.5, "Q5_K_M": 6.5, "Q6_K": 7.0, "Q8_0": 9.0}


@dataclass(kw_only=True)
class Climb:
    """What the files of one run share. `f16` is its entry, `windows` the tokens to compare on."""

    job: Job
    origin: Origin
    work: Path
    bounds: Limits
    patience: float
    tell: Callable[[str, float, float], None]
    f16: dict[str, Any]
    windows: list[dict[str, Any]]
    calibration: Calibration
    matrix: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        """The proven F16 file, in plain bytes."""
        return local(Path(self.f16["path"]))

    def answer(self, asked: Recipe) -> dict[str, Any]:
        """Publish what `asked` makes, or the next rung that is close enough to F16.

        Raises:
            ProofFailed: none is, or a file differs in more than its weights.
            EngineFailed: llama.cpp failed at one of them.
        """
        stepped: dict[str, dict[str, Any]] = {}
        for recipe in ladder(asked):
            draft = self.work / f"{recipe.suffix}.gguf"
            figures, header = self._try(recipe, draft)
            missed = shortfalls(figures, self.bounds[recipe.kind])
            limits = asdict(self.bounds[recipe.kind])
            if not missed:
                proof: dict[str, Any] = {
                    "against": "F16",
                    "loss": figures,
                    "limits": limits,
                    "stepped_up": stepped,
                }
                proof |= {"f16": self._f16_words(), "imatrix": dict(self.matrix) if recipe.matrix else None}
                proof["verdict"] = "PASS"
                changed = limits_changed(self.bounds, [recipe.kind], self.origin.plan.arch)
                if changed := {**self.f16["proof"].get("limits_changed", {}), **changed}:
                    proof["limits_changed"] = changed
                serving = measured(draft, recipe.label, self.patience)
                return shelf.publish(self.job, self.origin, recipe, asked, draft, header, proof, serving)
            draft.unlink()
            stepped[recipe.label] = {"missed": missed, "limits": limits, "loss": figures}
            self.job.log(f"{recipe.label} is too far from F16 ({'; '.join(missed)}); trying the next rung.")
        reasons = "; ".join(f"{label}: {', '.join(rung['missed'])}" for label, rung in stepped.items())
        raise ProofFailed(
            f"No type from {asked.label} up is close enough to F16 ({reasons}).",
            _hint([rung["loss"] for rung in stepped.values()]),
        )

    def _try(self, recipe: Recipe, draft: Path) -> tuple[dict[str, Any], Gguf]:
        """Make the draft; how much it lost, and its header."""
        if recipe.matrix and not self.matrix:
            self._collect()
        size = int(self.origin.plan.parameters * BITS[recipe.kind] / 8)
        stage = f"quantise {recipe.label}"

        def watch() -> None:
            self.tell(stage, min(size, draft.stat().st_size if draft.exists() else 0), size)

        self.job.progress(stage, 0, size)
        worker.start(
            quantize_file,
            doing=f"Quantising to {recipe.label}",
            timeout=self.patience,
            writes=[draft.parent],
            source=str(self.source),
            target=str(draft),
            kind=recipe.kind,
            tensor_types=[list(pair) for pair in recipe.tensor_types],
            output_type=recipe.output_type,
            embedding_type=recipe.embedding_type,
            matrix=str(self._matrix_file) if recipe.matrix else "",
        ).result(watch)
        stage = f"prove {recipe.label}"
        self.job.progress(stage, 0, 1)
        header = read_gguf(draft)
        if not same_words(header, read_gguf(self.source)):
            raise ProofFailed(
                f"The {recipe.label} file differs from its F16 in more than its weights.",
                "Nothing was registered.",
            )
        figures: dict[str, Any] = worker.run(
            lose,
            doing=f"Comparing {recipe.label} with F16",
            timeout=4 * self.patience,
            file=str(draft),
            against=str(self.source),
            windows=self.windows,
        )
        self.job.progress(stage, 1, 1, kld=shelf.valid(figures["kld_mean"]), bits=header.bits_per_weight)
        return figures, header

    @property
    def _matrix_file(self) -> Path:
        return self.work / "imatrix.gguf"

    def _collect(self) -> None:
        self.job.progress("collect the importance matrix", 0, 1)
        seen = worker.run(
            collect,
            doing="Collecting the importance matrix",
            timeout=4 * self.patience,
            writes=[self.work],
            file=str(self.source),
            target=str(self._matrix_file),
            texts=list(self.calibration.texts),
            chats=[list(chat) for chat in self.calibration.chats],
            dataset=self.calibration.name,
            parameters=self.origin.plan.parameters,
        )
        self.matrix = {
            "dataset": self.calibration.name,
            "declared_public_by": self.job.who if self.calibration.sha256 else None,
            "sha256": sha256_file(self._matrix_file),
            **seen,
        }
        self.job.progress("collect the importance matrix", 1, 1)

    def _f16_words(self) -> dict[str, Any]:
        """What was proven of the F16 file, so that each proof speaks for itself."""
        proof = self.f16["proof"]
        told = {key: proof[key] for key in ("tokens", "template", "logits")}
        return {"name": self.f16["name"], "sha256": self.f16["sha256"], **told}


def measured(draft: Path, label: str, patience: float) -> dict[str, Any]:
    """Memory when served and speed here, of a proven draft."""
    found: dict[str, Any] = worker.run(measure, doing=f"Measuring {label}", timeout=patience, file=str(draft))
    memory = found["memory"]
    total = draft.stat().st_size + memory["kv"] + memory["compute"]
    return {"memory": {**memory, "total": total}, "tokens_per_second": found["speed"]}


def _hint(losses: list[dict[str, Any]]) -> str:
    """What to do where no type is close enough; logits that are no numbers may be the F16 file's own."""
    if any(loss["not_finite"] for loss in losses):
        return "Use another base: this one does not compute with the numbers that serving keeps."
    return "Serve the F16 file, or change the limits if the task's accuracy holds."
