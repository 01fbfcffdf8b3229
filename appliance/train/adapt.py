"""What of a base is trained: LoRA, its last layers, its head, all of it, or a soft prompt.

Whatever the method, the parameters that require a gradient afterwards are exactly those that are
trained, and they are in float32.
"""

from __future__ import annotations

from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.train.settings import Settings, targets_in
from appliance.train.soft import add_prompt


def adapt(model: Any, settings: Settings, first: int = 0) -> Any:
    """The base made ready for training by `settings.method`, in training mode.

    `first` is the id of a soft prompt's first token (soft.prompted_words). The model must be on its
    device already: adapters added before a move do not learn.

    Raises:
        ConfigWrong: the base has no such layers, or the method cannot be had with these settings.
    """
    import torch

    _check(model, settings)
    torch.manual_seed(settings.seed)
    for part in model.parameters():
        part.requires_grad_(False)
    if settings.precision == "bfloat16":
        _compute_in_bfloat16(model, settings)
    if settings.method == "prompt":
        untie(model)
        add_prompt(model, settings.prompt_tokens, first)
        tuned = model
    else:
        tuned = _METHODS[settings.method](model, settings)
    if settings.checkpointing:
        _checkpoint_layers(tuned, settings)
    return tuned.train()


def _compute_in_bfloat16(model: Any, settings: Settings) -> None:
    """LoRA's base can be kept in bfloat16; where its own weights are trained, only the products are."""
    import torch

    if settings.method == "lora":
        model.to(torch.bfloat16)
    else:
        model.forward = torch.autocast(model.device.type, torch.bfloat16)(model.forward)


def _check(model: Any, settings: Settings) -> None:
    count = int(model.config.num_hidden_layers)
    if settings.layers > count:
        raise ConfigWrong(
            f"The base has {count} layers, not {settings.layers}.", f"Use --layers {count} or less."
        )
    if settings.dropout and settings.method != "lora":
        raise ConfigWrong("Dropout is for LoRA only.", "Leave out --dropout, or use --method lora.")
    if settings.method in ("head", "prompt") and model.config.model_type == "gemma2":
        # `untie` would make a model that llama.cpp cannot hold.
        raise ConfigWrong(
            "The output layer of Gemma 2 cannot differ from its embedding.", "Use --method lora."
        )


def add_lora(model: Any, settings: Settings) -> Any:
    """Fresh adapters on the linear layers named in `settings.targets`.

    `settings.layers` takes only that many of the last decoder layers; 0 takes all. LoRA's own
    weights are float32 whatever the base's are.

    Raises:
        ConfigWrong: the base has no layer of one of these names.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    names = {
        name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)
    }
    count = int(model.config.num_hidden_layers)
    tuned = get_peft_model(
        model,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            use_rslora=settings.rslora,
            target_modules=targets_in(names, settings),
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


def _last_layers(model: Any, settings: Settings) -> Any:
    for layer in model.model.layers[-max(1, settings.layers) :]:
        layer.requires_grad_(True)
    return model


def _head(model: Any, settings: Settings) -> Any:
    """The output layer alone; where it shares its matrix with the embeddings it gets one of its own."""
    untie(model)
    model.get_output_embeddings().requires_grad_(True)
    return model


def untie(model: Any) -> None:
    """Give the output layer a matrix of its own, equal to the one it shared with the embeddings."""
    import torch

    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is words.weight:
        head.weight = torch.nn.Parameter(words.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def _full(model: Any, settings: Settings) -> Any:
    return model.requires_grad_(True)


def _checkpoint_layers(tuned: Any, settings: Settings) -> None:
    """Compute the layers' activations again in the backward pass instead of keeping them.

    Opacus' hooks see nothing under the newer kind of checkpointing (use_reentrant=False), so what
    they serve takes the older one, which needs a gradient at the layers' input.
    """
    older = settings.method != "lora"
    if older:
        tuned.enable_input_require_grads()
    inner = tuned.get_base_model() if settings.method == "lora" else tuned
    inner.activation_checkpointing_enable({"use_reentrant": older})


_METHODS = {"lora": add_lora, "last-layers": _last_layers, "head": _head, "full": _full}
