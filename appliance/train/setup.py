"""Everything a run needs before its first step: records in tokens, the base made trainable, the loss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.core.files import work_folder, write_json
from appliance.core.job import Job
from appliance.core.reading import local, read_bytes
from appliance.data import store
from appliance.data.planted import Secret, make_secrets, planted
from appliance.models import registry
from appliance.models.encoding import Encoder, Example, Pair
from appliance.models.load import device, encoder_for, load_tokenizer, load_torch
from appliance.models.registry import Model
from appliance.models.task import Task
from appliance.privacy import ledger
from appliance.train.asked import objective_for
from appliance.train.losses import Loss, with_margins
from appliance.train.material import Material, gather
from appliance.train.plan import Plan
from appliance.train.settings import Settings
from appliance.train.statement import trained_words


@dataclass(frozen=True, kw_only=True)
class Setup:
    """`model` is ready for training, with `trained` parameters that are; `words` is the folder of the
    tokenizer that it reads with; `secrets` are planted in `material`.
    """

    settings: Settings
    dataset: store.Dataset
    base: Model
    words: Path
    encoder: Encoder
    material: Material
    model: Any
    trained: int
    loss: Loss
    device: str
    secrets: list[Secret]


def set_up(job: Job, spec: Mapping[str, Any], settings: Settings, work: Path) -> Setup:
    """Read records and base, and put the two together; `work` is a folder for drafts.

    Raises:
        ConfigWrong: the base is none, or settings that do not fit it or the records.
        PrivacyRefused, DataRejected, ModelRejected: records, teacher or base that cannot be used.
    """
    from appliance.train.adapt import adapt
    from appliance.train.objective import load_teacher, loss_for

    dataset = store.get(job.home, spec["dataset"], spec.get("version"))
    base = registry.intact(job.home, spec["base"])[0]
    if base.kind != "base":
        raise ConfigWrong(f"{base.name} is not a base model.", "Choose one with `cloister model list`.")
    settings = replace(settings, objective=objective_for(settings, dataset.task))
    own = words = local(base.path)
    first = 0
    if settings.method == "prompt":
        from appliance.train.soft import prompted_words

        words = work_folder(work / "words")
        first = prompted_words(own, words, settings.prompt_tokens)
    teacher = load_teacher(job.home, settings, base) if settings.objective == "distill" else None
    job.progress("load", 0, 1)
    model, tokenizer = load_torch(own)
    if words != own:
        tokenizer = load_tokenizer(words)
    task = Task(kind=dataset.task, prompt=dataset.prompt, labels=dataset.labels)
    context = int(getattr(model.config, "max_position_embeddings", 2048))
    encoder = encoder_for(tokenizer, words, task, min(settings.max_tokens, context))
    secrets = kept_secrets(job, settings, dataset)
    material = gather(dataset, encoder, settings, planted(secrets, dataset.task))
    where = device()
    if settings.objective == "dpo":
        material = _with_margins(model, material, where, job)
    tuned = adapt(model, settings, first)
    return Setup(
        settings=settings,
        dataset=dataset,
        base=base,
        words=words,
        encoder=encoder,
        material=material,
        model=tuned,
        trained=sum(part.numel() for part in tuned.parameters() if part.requires_grad),
        loss=loss_for(settings.objective, settings, encoder, int(tuned.config.vocab_size), teacher),
        device=where,
        secrets=secrets,
    )


def announced(job: Job, setup: Setup, plan: Plan) -> dict[str, Any]:
    """The plan as it is told before the first step: with what is trained on what, and within which limits."""
    budget = ledger.budget(job.home, setup.dataset.name) if setup.settings.private else None
    return {
        **plan.as_dict(),
        "noise_on_mean": plan.noise_on_mean,
        "dataset": setup.dataset.name,
        "version": setup.dataset.version,
        "synthetic": setup.dataset.synthetic,
        "base": setup.base.name,
        "what": trained_words(setup.settings),
        "trained": setup.trained,
        "max_grad_norm": setup.settings.max_grad_norm if setup.settings.private else None,
        "epsilon_limit": None if budget is None else budget.epsilon_limit,
    }


def kept_secrets(job: Job, settings: Settings, dataset: store.Dataset) -> list[Secret]:
    """The secrets of this job: made once, so that a resumed run has the same ones."""
    if not settings.plant_secrets:
        return []
    file = job.folder / "planted.json"
    if not file.exists():
        made = make_secrets(settings.plant_secrets, dataset.labels)
        write_json(file, [secret.as_dict() for secret in made])
    return [Secret(**one) for one in json.loads(read_bytes(file))]


def _with_margins(model: Any, material: Material, where: str, job: Job) -> Material:
    """The pairs with the base's own margin, which the loss measures from."""

    def judged(examples: list[Example]) -> dict[int, Example]:
        pairs = [example for example in examples if isinstance(example, Pair)]
        found: dict[int, Example] = {}
        for at in range(0, len(pairs), 50):
            some = pairs[at : at + 50]
            found |= {id(old): new for old, new in zip(some, with_margins(model, some, where), strict=True)}
            job.progress("judge pairs by the base", min(at + 50, len(pairs)), len(pairs))
        return found

    table = judged(material.records)
    return replace(
        material,
        records=[table[id(example)] for example in material.records],
        groups=[[table[id(example)] for example in group] for group in material.groups],
        validation=list(judged(material.validation).values()),
    )
