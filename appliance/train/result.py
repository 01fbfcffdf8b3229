"""What a finished run leaves: weights, their entry, and the claim of privacy that the ledger bears out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.core.files import replacing_folder, sha256_folder, write_json
from appliance.core.job import Job
from appliance.core.reading import size_of
from appliance.data import store
from appliance.models import registry
from appliance.privacy import ledger, logged, uncharged
from appliance.privacy.accountant import epsilon
from appliance.security.people import mode
from appliance.train.plan import Plan
from appliance.train.settings import Settings
from appliance.train.statement import statement

if TYPE_CHECKING:
    from appliance.train.run import Trained
    from appliance.train.setup import Setup


def release(
    job: Job,
    setup: Setup,
    plan: Plan,
    trained: Trained,
    *,
    name: str,
    others: Sequence[int] = (),
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Save what was trained, enter it in the registry as `name`, and say what came of the run.

    `others` are the steps of the other trials where it is the best of a search; `facts` are further ones
    for its entry.

    Raises:
        PrivacyRefused: the ledger does not bear the claim out.
    """
    from appliance.train.curves import draw

    name = _free_name(job, name)
    privacy = privacy_of(job, plan, setup.settings, setup.dataset, trained.done, others)
    folder, curves = job.home.models / name, job.home.reports / f"{job.id}-curves.png"
    draw(trained.history, curves, synthetic=setup.dataset.synthetic)
    kind = save_weights(setup.model, folder, words=setup.words, settings=setup.settings)
    entry = registry.add(
        job.home,
        registry.Model(
            name=name,
            kind=kind,
            path=folder,
            sha256=sha256_folder(folder),
            size=sum(size_of(file) for file in folder.iterdir()),
            job=job.id,
            parent=setup.base.name,
            dataset=setup.dataset.title,
            facts={
                "task": setup.encoder.task.as_dict(),
                "privacy": privacy,
                "training": {
                    "settings": setup.settings.as_dict(),
                    "plan": plan.as_dict(),
                    "trained": setup.trained,
                    "kept_step": trained.kept,
                    "stopped": trained.stopped,
                    "curves": str(curves),
                    "history": trained.history,
                },
                "synthetic": setup.dataset.synthetic,
                "people": mode.statement(job.home),
                "secrets": [secret.as_dict() for secret in setup.secrets],
                **(facts or {}),
            },
        ),
        who=job.who,
    )
    return {
        "name": entry.name,
        "kind": kind,
        "privacy": privacy,
        "steps": trained.done,
        "stopped": trained.stopped,
        "base": setup.base.name,
        "curves": str(curves),
    }


def _free_name(job: Job, name: str) -> str:
    """`name`, with the job's number where another run has taken it: what is paid is not thrown away."""
    try:
        registry.check_free(job.home, name, job.id)
    except ConfigWrong:
        job.log(f"Another model was named {name} meanwhile; this one is {name}-{job.id}.")
        return f"{name}-{job.id}"
    return name


def save_weights(tuned: Any, folder: Path, *, words: Path, settings: Settings) -> str:
    """Write an adapter, or the whole model where its own weights were trained; returns the kind of entry.

    `words` is the folder with the tokenizer and chat template that a whole model is saved with.
    """
    with replacing_folder(folder) as draft:
        if settings.method == "lora":
            _save_adapter(tuned, draft)
            return "adapter"
        _save_whole(tuned, draft, words)
        return "tuned"


def _save_adapter(tuned: Any, draft: Path) -> None:
    tuned.save_pretrained(draft, safe_serialization=True)
    (draft / "README.md").unlink(missing_ok=True)
    config = json.loads((draft / "adapter_config.json").read_bytes())
    config["base_model_name_or_path"] = None  # a path of this machine otherwise
    write_json(draft / "adapter_config.json", config)


def _save_whole(tuned: Any, draft: Path, words: Path) -> None:
    from appliance.train.soft import fold_prompt

    fold_prompt(tuned)
    tuned.save_pretrained(draft, safe_serialization=True)
    for file in words.iterdir():
        told = file.suffix in (".json", ".jinja", ".model") and "safetensors" not in file.name
        if told and file.name not in ("config.json", "generation_config.json"):
            shutil.copyfile(file, draft / file.name)


def privacy_of(
    job: Job, plan: Plan, settings: Settings, dataset: store.Dataset, done: int, others: Sequence[int] = ()
) -> dict[str, Any] | None:
    """The claim of the finished run, from what the ledger really holds; None without privacy.

    Raises:
        PrivacyRefused: the ledger does not bear it out.
    """
    if plan.noise_multiplier is None:
        return None
    found = ledger.budget(job.home, dataset.name)
    if found is None:
        raise PrivacyRefused("The ledger has no budget for this dataset.", "Restore the site's database.")
    logged.check_whole(job.home, dataset.name)
    history = ledger.charged(job.home, dataset.name, job.id)
    charged = sum(part.steps for part in history)
    if charged < done + sum(others):
        raise PrivacyRefused(
            f"{done + sum(others)} steps were taken and {charged} are in the ledger.",
            "The job's files were changed; start anew.",
        )
    told = statement(plan, settings, 1 + len(others))
    if dataset.labels and not dataset.facts.get("labels_declared"):
        told["not_protected"].append("the names of the labels, which were read from the records")
    if settings.precision == "bfloat16":
        told["not_protected"].append(
            "rounding: in bfloat16 a gradient differs by some percent with what shares its micro-batch"
        )
    before = uncharged.jobs_of(job.home, dataset.name, uncharged.OPEN)
    if before:
        told["not_protected"].append(
            f"what was learnt from {len(before)} earlier runs on these records without privacy (job"
            f" {', '.join(before[:5])}), such as settings that work"
        )
    return {
        **told,
        "delta": found.delta,
        "epsilon": epsilon(history, found.delta),
        "epsilon_dataset": found.spent(),
        "epsilon_limit": found.epsilon_limit,
        "people": mode.statement(job.home),
        "steps_charged": charged,
        "steps_released": done,
    }
