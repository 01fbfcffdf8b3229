"""What is converted: a registered base or tuned model, or a base with its adapter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.core.reading import local
from appliance.models import registry
from appliance.models.registry import Model
from quantize.arch import plan
from quantize.layout import Plan
from quantize.lora import Adapter, open_adapter
from quantize.recipe import Recipe
from quantize.source import Checkpoint, open_checkpoint, source_sha256


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is converted: a whole model, or the base called `base` with an adapter."""

    model: Model
    checkpoint: Checkpoint
    adapter: Adapter | None
    plan: Plan
    sha256: str
    base: str

    @property
    def facts(self) -> dict[str, str]:
        """Key-values of ours in every file made from it."""
        facts = {"cloister.source.sha256": self.sha256}
        if task := self.model.facts.get("task"):
            facts["cloister.task"] = json.dumps(task, ensure_ascii=False, sort_keys=True)
        return facts

    def name(self, recipe: Recipe) -> str:
        """Name of the registry entry of the file made by `recipe`."""
        return f"{self.model.name}-{recipe.suffix}"


def check_base(folder: Path) -> None:
    """Check that the model in `folder` can be converted, before hours are spent on training it.

    Raises:
        ModelRejected: it cannot, by its architecture, its settings or its tensors.
    """
    plan(open_checkpoint(folder))


def open_origin(home: Home, name: str) -> Origin:
    """The base or adapter called `name`.

    Raises:
        NotFound: there is none.
        ConfigWrong: it is a GGUF already, or an adapter on an adapter.
        ModelRejected: it cannot be converted with proof, or its files have changed.
    """
    chain = registry.intact(home, name)
    model, base = chain[0], chain[-1]
    if model.kind == "gguf":
        raise ConfigWrong(
            f"{name} is a GGUF file already.", "Quantise the adapter or base that it came from."
        )
    if base.kind != "base" or len(chain) > 2:
        raise ConfigWrong(
            f"{name} does not stand directly on a base.", "Quantise a base, or an adapter of one."
        )
    if model.whole:
        base = model
    checkpoint = open_checkpoint(local(base.path))
    adapter = open_adapter(local(model.path), checkpoint) if model.kind == "adapter" else None
    return Origin(
        model=model,
        checkpoint=checkpoint,
        adapter=adapter,
        plan=plan(checkpoint),
        sha256=source_sha256(base.path, model.path if adapter else None),
        base=base.name,
    )
