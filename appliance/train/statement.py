"""The exact privacy claim of a finished run: for whom, against what, by which means, and what it leaves out.

A card is read by people who were not there, so every sentence holds for this run's method and
objective and says no more than the accountant has counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.train.settings import Settings

if TYPE_CHECKING:
    from appliance.train.plan import Plan

_RECORD = {
    "sft": "records",
    "pretrain": "texts",
    "dpo": "preference pairs",
    "distill": "records",
}
_PLANTED = "the made-up units are people who are not there, with secrets that the privacy audit asks for"


def statement(plan: Plan, settings: Settings, trials: int = 1) -> dict[str, Any]:
    """The claim of a private run, for cards and reports. `settings.objective` "" reads as "sft".

    With several `trials` the run is the best of a search.
    """
    records = _RECORD[settings.objective or "sft"]
    return {
        "unit": plan.unit,
        "adjacency": f"add or remove one {plan.unit} with all of its {records}",
        "sampling": _sampling(plan, settings, records),
        "mechanism": _mechanism(plan, records),
        "trained": trained_words(settings),
        "learnt_from": _learnt_from(settings),
        **({"search": _search(trials)} if trials > 1 else {}),
        "noise_multiplier": plan.noise_multiplier,
        "max_grad_norm": settings.max_grad_norm,
        "sample_rate": plan.sample_rate,
        "delta": plan.delta,
        "accountant": plan.accountant,
        "declared_units": plan.units,
        **({"made_up_units": plan.made_up, "planted": _PLANTED} if plan.made_up else {}),
        "not_protected": _not_protected(plan, settings, records, trials),
    }


def trained_words(settings: Settings) -> str:
    """What of the model the run changes, in words."""
    last = f"the last {settings.layers} layers" if settings.layers > 1 else "the last layer"
    if settings.method == "last-layers":
        return f"all weights of {last}"
    if settings.method != "lora":
        return {
            "head": "the output layer",
            "full": "all weights",
            "prompt": f"{settings.prompt_tokens} new tokens before every prompt",
        }[settings.method]
    kind = "rank-stabilised LoRA" if settings.rslora else "LoRA"
    where = f" of {last}" if settings.layers else ""
    matrices = "A and B" if settings.trains_a else "B only, A is left as it was drawn"
    return f"{kind} of rank {settings.rank} on {', '.join(settings.targets)}{where} ({matrices})"


def _sampling(plan: Plan, settings: Settings, records: str) -> str:
    if plan.sampling == "unit":
        most = settings.records_per_unit
        drawn = f"{most} of its {records}" if most > 1 else f"one of its {records}"
        return f"Poisson over {plan.unit}s, rate {plan.sample_rate:g}; of a {plan.unit} up to {drawn} a step"
    return f"Poisson over {records}, rate {plan.sample_rate:g}, at most {plan.draws} of a {plan.unit}"


def _mechanism(plan: Plan, records: str) -> str:
    what = (
        f"the gradients of {plan.unit}s, each the mean over its {records} in the step and clipped once"
        if plan.sampling == "unit"
        else f"the gradients of {records}, each clipped alone"
    )
    return f"discrete Gaussian, CSPRNG noise, on the sum of {what}"


def _learnt_from(settings: Settings) -> str:
    match settings.objective or "sft":
        case "pretrain":
            return "every token of the texts"
        case "dpo":
            return (
                f"chosen against rejected answers, with the base as reference (DPO, beta {settings.beta:g})"
            )
        case "distill":
            return (
                f"the records' answers and, with weight {settings.distill_weight:g}, those of the teacher"
                f" {settings.teacher} on the same prompts (temperature {settings.temperature:g})"
            )
    return "the records' answers"


def _search(trials: int) -> str:
    return (
        f"the best of {trials} trials by the loss of validation records; epsilon counts the steps of all"
        " trials, so it covers each of them and the choice"
    )


def _not_protected(plan: Plan, settings: Settings, records: str, trials: int) -> list[str]:
    told = [
        "validation and test records, which are used to measure and not to train",
        f"the number of records, {plan.unit}s and labels, which are stated openly",
        "what is shown in training and kept with the model: losses, share of clipped units, batch sizes",
    ]
    if settings.early_stop:
        told.append(
            "validation records also in when the run ended and which step was kept: both follow from their"
            " loss alone, never from that of training records"
        )
    if trials > 1:
        told.append("validation records also in which trial was kept and what was tried next")
    if plan.sampling == "record":
        told.append(
            f"that at most {plan.draws} {records} of a {plan.unit} were used: the others were left out, and"
            " how many is not hidden"
        )
    if settings.objective == "distill":
        told.append(
            f"whoever the teacher {settings.teacher} was trained on: its own privacy is not covered here"
        )
    if settings.objective == "dpo":
        told.append("whoever answered: only the unit of each pair is protected, not who wrote or judged it")
    told.append("whoever the base was trained on before it came here")
    return told
