"""What a finished run leaves: a folder of weights, and the claim of privacy that the ledger bears out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from appliance.core.errors import PrivacyRefused
from appliance.core.files import replacing_folder, write_json
from appliance.core.job import Job
from appliance.data import store
from appliance.privacy import ledger
from appliance.privacy.accountant import epsilon
from appliance.train.plan import Plan
from appliance.train.settings import Settings
from appliance.train.statement import statement


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
    job: Job, plan: Plan, settings: Settings, dataset: store.Dataset, done: int
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
    charged = sum(event["steps"] for event in ledger.events(job.home, dataset.name) if event["job"] == job.id)
    if charged < done:
        raise PrivacyRefused(
            f"{done} steps were taken and {charged} are in the ledger.",
            "The job's files were changed; start anew.",
        )
    told = statement(plan, settings)
    if dataset.labels and not dataset.facts.get("labels_declared"):
        told["not_protected"].append("the names of the labels, which were read from the records")
    if settings.precision == "bfloat16":
        told["not_protected"].append(
            "rounding: in bfloat16 a gradient differs by some percent with what shares its micro-batch"
        )
    return {
        **told,
        "epsilon": epsilon([plan.charged(charged)], found.delta),
        "epsilon_dataset": found.spent(),
        "epsilon_limit": found.epsilon_limit,
        "steps_charged": charged,
        "steps_released": done,
    }
