"""What federated rounds learn on a real set, beside pooled and single-site training: `learning --data DIR`.

Five sites with skewed labels (each label spread by shares from Dirichlet 0.3). Every row is one model,
judged on the same held-out records with a 95 % interval; all begin with the same adapter and take the same
number of steps, those with the same parameters at the same rate. Pooled training has the records of all
sites in one place and takes batches five times as large, so it sees as many records in all; a single site
takes the batches it takes in a round. Neither starts Adam anew. "mean" is federated averaging with LoRA's A
as drawn (its mean is exact); "A and B" trains both, where the mean of the factors is not the mean of the
products. Epsilon is each site's own, over all rounds. Sets: snips (7 intents), clinc10 (CLINC150's ten
domains), banking15 (as in chain.py). The sets' own test files are not used.

The schedule below (rounds, steps, rates) was chosen on snips with seed 0, and no other split was looked at.
So the seeds that are run begin with 1: other records held out, another deal, another adapter to begin with.
The last table of a set holds means over its seeds, with the least and the most.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.table import row, show

_SITES, _SKEW, _ROUNDS, _STEPS, _HELD_OUT, _MOST = 5, 0.3, 16, 4, 1000, 4000
_OPEN = {"private": False, "batch": 32, "learning_rate": 0.02}
_PRIVATE = {"private": True, "sample_rate": 0.1, "learning_rate": 0.05}
_BOTH = {"freeze_a": False, "learning_rate": 5e-3}
_OURS = "mean, int8"
_FEDERATED: dict[str, dict[str, Any]] = {
    _OURS: {},
    "mean, fp32": {"packing": "f32"},
    "mean, A and B, int8": _BOTH,
    "products, A and B, int8": _BOTH | {"rule": "products"},
}


def run(options: Any) -> None:
    """Run the sets named in --sets (default: snips and clinc10), --seeds times each.

    Raises:
        SystemExit: no --data.
    """
    if not options.data:
        raise SystemExit("learning needs --data DIR (a folder with snips/train.jsonl)")
    asked = [name for name in options.sets.split(",") if name in _SETS]
    for name in asked if options.sets != "banking15,medsec" else ["snips", "clinc10"]:
        seeds = [_one(name, Path(options.data), seed, options) for seed in range(1, 1 + options.seeds)]
        show(list(_over_seeds(name, seeds)), options.json)


def _over_seeds(name: str, seeds: list[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Means over the seeds of what their rows say, with the least and the most."""
    for kind in ("open", "private"):
        found = [
            {one["who"]: one["accuracy"] for one in rows if one["case"].endswith(kind)} for rows in seeds
        ]
        told: dict[str, list[float]] = {who: [one[who] for one in found] for who in _shared(found)}
        told["best single site"] = [
            max(value for who, value in one.items() if who.endswith(" alone")) for one in found
        ]
        told["federated as a share of pooled"] = [one[_OURS] / one["pooled"] for one in found]
        for metric, values in told.items():
            spread = f" [{min(values):.3f}, {max(values):.3f}]"
            case = f"{name}, {len(seeds)} seeds, {kind}"
            yield row("learning", case, metric + spread, statistics.mean(values), None, "accuracy")


def _shared(found: list[dict[str, float]]) -> list[str]:
    """The models that every seed has; the sites of two seeds are not the same ones."""
    return [who for who in found[0] if not who.endswith(" alone") and all(who in one for one in found)]


def _one(name: str, data: Path, seed: int, options: Any) -> list[dict[str, Any]]:
    import torch

    from appliance.models.importing import DEMO_BASE
    from appliance.models.task import PROMPT, Task
    from federated.simulated import World
    from federated.split import dealt

    torch.set_num_threads(1)
    records = _records(name, data, seed)
    held_out, rest = records[:_HELD_OUT], records[_HELD_OUT : _HELD_OUT + (options.records or _MOST)]
    task = Task(kind="label", prompt=PROMPT, labels=tuple(sorted({record.answer for record in records})))
    world = World(base=str(DEMO_BASE), task=task.as_dict(), unit="record", batch=_OPEN["batch"])
    parts = dealt(rest, _SITES, "dirichlet", alpha=_SKEW, seed=seed)
    found = []
    for title, terms in (("open", _OPEN), ("private", _PRIVATE)):
        case = f"{name}, seed {seed}, {title}"
        rows = list(_compared(case, world, parts, held_out, terms, seed, options))
        show(rows, options.json)
        found += rows
    return found


def _compared(
    case: str,
    world: Any,
    parts: Sequence[Sequence[Any]],
    held_out: Sequence[Any],
    terms: dict[str, Any],
    seed: int,
    options: Any,
) -> Any:
    from appliance.core.errors import PrivacyRefused

    found: dict[str, dict[str, Any]] = {}
    asked = {"sites": _SITES, "rounds": options.rounds or _ROUNDS, "steps": options.steps or _STEPS}
    for title, more in _FEDERATED.items():
        if terms["private"] and more.get("freeze_a") is False:
            continue
        with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder:
            found[title] = _federated(
                {**asked, **terms, **more, "seed": seed}, world, parts, held_out, Path(folder)
            )
            if title == _OURS:
                whole = [record for part in parts for record in part]
                batches = {"pooled": _SITES * world.batch}
                told = {"pooled": whole} | {f"site {n} alone": part for n, part in enumerate(parts, 1)}
                for who, some in told.items():
                    spec = {**asked, **terms, "seed": seed}
                    try:
                        found[who] = _alone(Path(folder), spec, world, some, held_out, batches.get(who))
                    except PrivacyRefused as few:  # it could not take part in the rounds either
                        print(f"learning: {case}, {who}: {few.message}", file=sys.stderr, flush=True)
    pooled = found["pooled"]["accuracy"]
    for title, one in found.items():
        spent = "" if one.get("epsilon") is None else f" eps {one['epsilon']:.2f}"
        count = f" n={one['trained_on']}" if "trained_on" in one else ""
        metric = f"{title}{count}{spent} [{one['low']:.3f}, {one['high']:.3f}]"
        yield row("learning", case, metric, one["accuracy"], pooled, "accuracy") | one | {"who": title}


def _federated(
    spec: dict[str, Any], world: Any, parts: Sequence[Any], held_out: Sequence[Any], folder: Path
) -> dict[str, Any]:
    from federated.simulate import Wanted, play

    def told(event: str, **facts: Any) -> None:
        if event == "simulated":
            print(f"learning: {spec.get('rule', 'mean')} {facts}", file=sys.stderr, flush=True)

    done = play(Wanted(**spec, engine="processes"), world, [], held_out, folder, told, parts=parts)
    curve = [one["accuracy"] for one in done["rounds"]]
    return done["final"] | {
        "epsilon": done["epsilon_per_site"],
        "delta": done["delta"],
        "bytes": done["bytes_per_update"],
        "curve": curve,
    }


def _alone(
    folder: Path,
    spec: dict[str, Any],
    world: Any,
    records: Sequence[Any],
    held_out: Sequence[Any],
    batch: int | None,
) -> dict[str, Any]:
    """A model trained in one place, in the folder of a federated run: its agreement, without the rounds."""
    from federated.simulate import Wanted
    from federated.simulate_world import federation_of
    from federated.simulated import Played

    played = Played(folder)
    played.settings = replace(played.settings, batch=batch or world.batch)
    _, start, judge = federation_of(Wanted(**spec), world, {"a": len(records), "b": 1}, held_out)
    trainer = played.trainer_of(list(records))
    training = trainer.federation.training
    steps = training.steps * trainer.federation.rounds.count
    whole = trainer.federation.model_copy(update={"training": training.model_copy(update={"steps": steps})})
    learnt = replace(trainer, federation=whole).train(start, 1)
    judge.of(start + learnt.change)
    return judge.final | {"epsilon": trainer.plan.epsilon_after, "trained_on": len(records)}


def _records(name: str, data: Path, seed: int) -> list[Any]:
    from appliance.data.records import Record

    found = list(_SETS[name](data))
    texts = {one["text"]: one["label"] for one in found}
    records = [
        Record(id=f"{number:05}", text=text, answer=label, unit=f"{number:05}")
        for number, (text, label) in enumerate(texts.items())
    ]
    random.Random(seed).shuffle(records)
    return records


def _snips(data: Path) -> Iterator[dict[str, str]]:
    yield from map(json.loads, (data / "snips" / "train.jsonl").read_text().splitlines())


def _clinc10(data: Path) -> Iterator[dict[str, str]]:
    """Which of ten domains an utterance belongs to, by one word each; those out of scope are left out."""
    for line in (data / "clinc150" / "train.jsonl").read_text().splitlines():
        one = json.loads(line)
        if one["domain"] in _DOMAINS:
            yield {"text": one["text"], "label": _DOMAINS[one["domain"]]}


def _banking15(data: Path) -> Iterator[dict[str, str]]:
    from bench.chain import _BANKING15, _banking

    yield from _banking(data, _BANKING15)


_DOMAINS = {
    "travel": "travel", "banking": "banking", "utility": "utility", "small_talk": "talk", "work": "work",
    "credit_cards": "card", "meta": "assistant", "home": "home", "auto_and_commute": "car",
    "kitchen_and_dining": "food",
}  # fmt: skip
_SETS = {"snips": _snips, "clinc10": _clinc10, "banking15": _banking15}
