"""What a run is asked to learn: the objective that a dataset's records and the settings give."""

from __future__ import annotations

from appliance.core.errors import ConfigWrong
from appliance.train.settings import Settings

_ASKED = {"label": "sft", "answer": "sft", "chat": "sft", "text": "pretrain", "preference": "dpo"}
_FITS = {
    "sft": ("label", "answer", "chat"),
    "pretrain": ("text",),
    "dpo": ("preference",),
    "distill": ("label", "answer", "chat", "text"),
}


def objective_for(settings: Settings, kind: str) -> str:
    """The objective of a run on a dataset whose task is of this kind.

    Raises:
        ConfigWrong: the one asked for cannot learn from such records, or a teacher is missing or unused.
    """
    chosen = settings.objective or ("distill" if settings.teacher else _ASKED[kind])
    if kind not in _FITS[chosen]:
        raise ConfigWrong(
            f"The objective {chosen} cannot learn from a dataset of the kind {kind}.",
            f"Leave out --objective, or import the records as one of: {', '.join(_FITS[chosen])}.",
        )
    if (chosen == "distill") != (settings.teacher is not None):
        raise ConfigWrong(
            "Distillation needs a teacher, and only distillation has one.",
            "Give both: --objective distill --teacher MODEL.",
        )
    if chosen == "distill" and settings.method == "prompt":
        raise ConfigWrong(
            "A soft prompt has tokens that the teacher does not know.", "Distil with --method lora."
        )
    return chosen
