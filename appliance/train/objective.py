"""The loss of a run's objective (asked.py), and the teacher of a distillation."""

from __future__ import annotations

from typing import Any

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.core.files import sha256_file
from appliance.core.home import Home
from appliance.models import registry
from appliance.models.encoding import Encoder
from appliance.models.load import load_torch
from appliance.models.registry import Model
from appliance.train.losses import Loss, distilled_loss, full_loss, label_loss, preference_loss
from appliance.train.settings import Settings

_SHARED = ("tokenizer.json", "chat_template.jinja")


def loss_for(objective: str, settings: Settings, encoder: Encoder, vocabulary: int, teacher: Any) -> Loss:
    """The loss of one record under `objective`; `teacher` is a loaded model for distillation."""
    if objective == "dpo":
        return preference_loss(settings.beta)
    own = label_loss(encoder.trie(), vocabulary) if encoder.task.kind == "label" else full_loss
    if objective == "distill":
        return distilled_loss(teacher, own, temperature=settings.temperature, weight=settings.distill_weight)
    return own


def load_teacher(home: Home, settings: Settings, base: Model) -> Any:
    """The teacher of a distillation, loaded and frozen; it must read text as `base` does.

    Raises:
        ConfigWrong: a GGUF, or a model with another tokenizer or chat template.
        PrivacyRefused: a private run would learn from a teacher that was trained without privacy.
    """
    chain = registry.intact(home, settings.teacher or "")
    if chain[0].kind == "gguf":
        raise ConfigWrong(
            f"{settings.teacher} is a GGUF file; a teacher must be a base or a trained model.",
            "Name the model it was made from.",
        )
    if settings.private and any(step.trained and not step.facts.get("privacy") for step in chain):
        raise PrivacyRefused(
            f"{settings.teacher} was trained without differential privacy: its answers may repeat records.",
            "Take a base, or a model that was trained privately, as the teacher.",
        )
    folder = next(step.path for step in chain if step.whole)
    for name in _SHARED:
        ours, theirs = base.path / name, folder / name
        if ours.exists() != theirs.exists() or (ours.exists() and sha256_file(ours) != sha256_file(theirs)):
            raise ConfigWrong(
                f"{settings.teacher} reads text otherwise than {base.name} ({name} differs).",
                "Distil between models of one family, with the same tokenizer and chat template.",
            )
    teacher, _ = load_torch(folder, None if chain[0].whole else chain[0].path)
    return teacher.requires_grad_(False)
