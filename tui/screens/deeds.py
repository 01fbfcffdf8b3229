"""What a person can do from a screen, whether it can be done now, and if not, why not.

Everything goes through the door, from a worker thread.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from appliance.core.errors import ConfigWrong
from tui.cli.files_plan import files_lines
from tui.cli.lines import preview_lines
from tui.cli.tables import wrapped
from tui.screens.site import LIVE, JobRow
from tui.session import Session
from tui.steps import NextStep


@dataclass(frozen=True, kw_only=True)
class Deed:
    """`kind` is "open" (a job), "form" (asks what it needs), "start" (at once), "ask" (after a question) or
    "words" (to be typed)."""

    kind: str
    verb: str
    words: str
    target: str = ""
    question: str = ""
    label: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def planned(self) -> bool:
        """Whether its plan is shown before it is asked about."""
        return self.verb in ("train", "search", "quantize")

    @property
    def epsilon(self) -> float | None:
        """Of a training: the most that the dataset may have spent at its end, where one was named."""
        settings = self.spec.get("settings", {})
        return None if settings.get("epsilon") is None else float(settings["epsilon"])

    @property
    def key(self) -> str:
        """What Enter does, in a word."""
        verb = "quantise" if self.verb == "quantize" else self.verb
        return {"open": "watch", "words": "how"}.get(self.kind, verb)


def deed_of(step: NextStep) -> Deed:
    """What Enter does with the next step; a step that needs words to be typed gives those."""
    try:
        words = shlex.split(step.command)
    except ValueError:
        words = []
    match words:
        case ["cloister", "job", "tail", job]:
            return Deed(kind="open", verb="watch", words=step.command, target=job)
        case ["cloister", "data", "import", *_]:
            return Deed(kind="form", verb="import", words=step.command, target="data")
        case ["cloister", "model", "import", source, *_]:
            target = "file" if source.endswith(".gguf") else "base"
            return Deed(kind="form", verb="import", words=step.command, target=target)
        case ["cloister", "model", "card", model]:
            return Deed(kind="form", verb="report", words=step.command, target=model)
        case ["cloister", "evaluate", model]:
            return Deed(kind="start", verb="evaluate", words=step.command, target=model)
        case ["cloister", "serve", model] | ["cloister", "serve", model, "--ungated"]:
            return Deed(kind="form", verb="serve", words=step.command, target=model)
        case ["cloister", "chat", model]:
            return Deed(kind="form", verb="chat", words=step.command, target=model)
        case ["cloister", "quantize", model]:
            return quantising({"model": model, "types": ["Q4_K_M", "Q8_0"]})
        case ["cloister", "train", dataset, "--base", base]:
            return training({"dataset": dataset, "base": base, "settings": {}})
    return Deed(kind="words", verb="how", words=step.command)


def training(spec: Mapping[str, Any], *, search: bool = False) -> Deed:
    """The training, or the search, of this spec; its plan is shown first."""
    verb, what = ("search", "Search with") if search else ("train", "Train")
    return Deed(
        kind="ask",
        verb=verb,
        words=f"cloister {verb} {spec['dataset']} --base {spec['base']}",
        spec=spec,
        label="Search" if search else "Train",
        question=f"{what} {spec['base']} on {spec['dataset']}? What it spends of the privacy budget cannot be"
        " had back. Epsilon bounds what a model can tell of one person: less is safer, and learns less.",
    )


def quantising(spec: Mapping[str, Any]) -> Deed:
    """The quantising of this spec; its plan is shown first."""
    model = spec["model"]
    return Deed(
        kind="ask",
        verb="quantize",
        words=f"cloister quantize {model}",
        target=model,
        spec=spec,
        label="Quantise",
        question=f"Quantise {model}? Every file is proven to be the model before it is entered.",
    )


def plan_text(session: Session, deed: Deed, width: int) -> str:
    """What a training or quantising would do and cost, in lines; nothing is started.

    Raises:
        ApplianceError: it cannot be had.
    """
    if deed.verb == "quantize":
        lines = files_lines(session.plan_quantising(dict(deed.spec)), width)
    elif deed.verb == "search":
        lines = preview_lines(session.plan_search(dict(deed.spec)), width)
    else:
        lines = preview_lines(session.plan_training(dict(deed.spec)), width)
    others = "z in 5 Models" if deed.verb == "quantize" else "n in 3 Train"
    return "\n".join([*lines, *wrapped(f"other ones: {others}", "  settings   ", width=width)])


def with_epsilon(deed: Deed, text: str) -> Deed:
    """The training with the epsilon that a person typed; nothing typed: what the budget allows.

    Raises:
        ConfigWrong: not a number above 0.
    """
    settings = {key: value for key, value in deed.spec["settings"].items() if key != "epsilon"}
    if not text.strip():
        return replace(deed, spec={**deed.spec, "settings": settings})
    try:
        epsilon = float(text)
    except ValueError:
        epsilon = 0.0
    if not 0 < epsilon < math.inf:
        raise ConfigWrong("Epsilon must be a number above 0.", "Type one such as 8, or leave it empty.")
    return replace(deed, spec={**deed.spec, "settings": settings | {"epsilon": epsilon}})


def do(session: Session, deed: Deed) -> str | None:
    """Do it; gives the id of the job that was started, if one was.

    Raises:
        ApplianceError: it cannot be done.
    """
    match deed.verb:
        case "evaluate":
            return session.start_evaluation(
                session.evaluation(deed.target, against=None, dataset=None, split="test", limit=None)
            )
        case "quantize":
            return session.start_quantising(dict(deed.spec))
        case "train":
            return session.start_training(dict(deed.spec))
        case "search":
            return session.start_search(dict(deed.spec))
    return None


def why_not(action: str, job: JobRow | None) -> str | None:
    """Why `stop`, `resume` or `open` cannot be done to `job` now; None when it can."""
    if job is None:
        return "no job is chosen"
    if action == "stop" and job.state not in LIVE:
        return f"job {job.id} is not running, it is {job.state}"
    if action == "resume" and job.state == "done":
        return f"job {job.id} is done"
    if action == "resume" and job.state in LIVE:
        return f"job {job.id} is {job.state}"
    return None


def stop_question(job: JobRow) -> str:
    """What a person should know before a job is stopped."""
    if job.kind == "serve":
        return f"Stop job {job.id}: {job.title}?\n\nWhoever uses the endpoint gets no more answers."
    return (
        f"Stop job {job.id}: {job.title}?\n\nWhat it has finished is kept."
        " It can be resumed, and goes on from its last checkpoint."
    )
