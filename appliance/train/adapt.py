"""Puts LoRA on a base: which layers, and nothing else trainable."""

from __future__ import annotations

from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.train.settings import Settings


def add_lora(model: Any, settings: Settings) -> Any:
    """The base with fresh adapters on the layers named in `settings.targets`.

    `settings.layers` takes only that many of the last decoder layers; 0 takes all.

    The model must be on its device already: adapters added before a move do not learn.

    Raises:
        ConfigWrong: the base has no layer of one of these names.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    names = {
        name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)
    }
    missing = [target for target in settings.targets if target not in names]
    if missing:
        raise ConfigWrong(
            f"The base has no layers named {', '.join(missing)}.",
            f"Choose --targets from: {', '.join(sorted(names - {'lm_head'}))}.",
        )
    count = int(model.config.num_hidden_layers)
    if settings.layers > count:
        raise ConfigWrong(
            f"The base has {count} layers, not {settings.layers}.", f"Use --layers {count} or less."
        )
    torch.manual_seed(settings.seed)
    tuned = get_peft_model(
        model,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,
            target_modules=list(settings.targets),
            layers_to_transform=list(range(count - settings.layers, count)) if settings.layers else None,
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )
    if not settings.trains_a:
        for name, part in tuned.named_parameters():
            if ".lora_A." in name:
                part.requires_grad_(False)
    return tuned
