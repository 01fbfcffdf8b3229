"""One draft against transformers: what is asked of both, each in a child of its own, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.core.errors import DataRejected, NotFound
from appliance.core.home import Home
from appliance.core.profile import check_site
from appliance.data import store
from appliance.data.records import spoken
from appliance.models.task import task_from
from quantize import worker
from quantize.header import read_gguf
from quantize.limits import Parity
from quantize.origin import Origin
from quantize.reference import reference
from quantize.texts import ANSWERS, CHATS, MESSAGES, NASTY, PASSAGES
from quantize.verify import examine, judge

_OWN, _LONGEST = 200, 2000  # of the site's own records, and characters of each
_PLAIN = 64  # added tokens that are read as they stand; all others are tried
_READ_OTHERWISE = ("lstrip", "rstrip", "single_word", "normalized")
_FORMS = ("?", "a ? b", "x?? y", " ?\n", "x?x")


def strings_for(home: Home, origin: Origin, texts: Sequence[str] = ()) -> list[str]:
    """The strings whose token ids must agree: ours, the site's own, and `texts`."""
    own = site_texts(home, origin.model.dataset)
    return [*NASTY, *special_strings(origin.checkpoint.tokenizer), *MESSAGES, *PASSAGES, *own, *texts]


def site_texts(home: Home, dataset: str | None) -> list[str]:
    """What the validation records of a model's dataset say; they are compared here and go nowhere else."""
    if dataset is None:
        return []
    try:
        records = store.read(store.get(home, dataset), "val")[:_OWN]
    except (NotFound, DataRejected):
        return []
    texts = [text for one in records for text in (spoken(one.text), one.answer) if text]
    return [text[:_LONGEST] for text in dict.fromkeys(texts)]


def patience(origin: Origin) -> float:
    """Seconds for one step in a child."""
    return 300 + origin.plan.parameters / 1e6


def start_reference(origin: Origin, strings: list[str], logits: Path) -> worker.Child:
    """Have transformers compute the model in a child; its logits go to `logits`, and no text elsewhere.

    Raises:
        ConfigWrong: the site profile, which brings transformers, is not installed.
    """
    check_site()
    return worker.start(
        reference,
        doing="Computing the model with transformers",
        timeout=4 * patience(origin),
        place=logits.parent,
        writes=[logits.parent],
        base=str(origin.checkpoint.folder),
        adapter=str(origin.adapter.folder) if origin.adapter else None,
        strings=strings,
        chats=list(CHATS),
        answered=_answered(origin.model.facts.get("task")),
        passages=list(PASSAGES),
        logits=str(logits),
        longest=origin.plan.hyperparameters["context_length"],
    )


def prove(
    origin: Origin,
    kind: str,
    limit: Parity,
    strings: list[str],
    wanted: dict[str, Any],
    draft: Path,
    theirs: Path,
    adapter: Path | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Figures of a draft of type `kind`, with the LoRA GGUF `adapter` on it if given, and faults in words.

    `wanted` and the logits in `theirs` are what start_reference gave.

    Raises:
        ModelRejected: its header is unsound. EngineFailed: llama.cpp crashed or hung on it.
    """
    read_gguf(draft)
    ours = theirs.with_name(f"{kind}.npy")
    seen = worker.run(
        examine,
        doing=f"Opening the {kind} file in llama.cpp",
        timeout=patience(origin),
        place=theirs.parent,
        writes=[theirs.parent],
        file=str(draft),
        strings=strings,
        chats=wanted["chats"],
        ends=wanted["ends"],
        windows=wanted["windows"][: wanted["compared"]],
        logits=str(ours),
        adapter=str(adapter) if adapter else None,
        served=kind == "F16",
    )
    return judge(kind, limit, strings, wanted, seen, theirs, ours)


def special_strings(tokenizer: dict[str, Any]) -> list[str]:
    """Strings with the tokenizer's own added tokens inside."""
    odd: list[str] = []
    plain: list[str] = []
    for entry in tokenizer.get("added_tokens", []):
        (odd if any(entry.get(flag) for flag in _READ_OTHERWISE) else plain).append(entry["content"])
    return [form.replace("?", token) for token in [*plain[:_PLAIN], *odd] for form in _FORMS]


def _answered(task: dict[str, Any] | None) -> list[tuple[list[dict[str, str]], str]]:
    """Chats with the answer that follows them, in the form that the model was tuned on."""
    form = task_from(task) if task else None
    answers = form.labels if form and form.labels else ANSWERS
    return [
        (
            [{"role": "user", "content": form.question(text) if form else text}],
            f" {answers[i % len(answers)]}",
        )
        for i, text in enumerate(MESSAGES)
    ]
