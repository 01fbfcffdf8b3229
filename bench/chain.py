"""The whole chain on real sets, beside linear models: `python -m bench chain --data DIR`.

For every set and seed: import, train with and without privacy, quantise, evaluate, all by the jobs
an operator would start, in a home that is thrown away. The linear rows use the same split. Sets:
banking15, banking77 (Banking77: 15 intents under one-word names, or all), medsec (MedQuAD: question
type of an answer's first 32 words, the disease's name masked, split by disease; only the diseases
that the recipe of the shipped base leaves out). The test rows are cut from the public training
files; the sets' own test files are not used.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.table import row, show

_BANKING15 = {
    "card_arrival": "arrival",
    "lost_or_stolen_card": "stolen",
    "exchange_rate": "exchange",
    "top_up_failed": "failed",
    "change_pin": "code",
    "cancel_transfer": "cancel",
    "terminate_account": "close",
    "cash_withdrawal_charge": "charge",
    "Refund_not_showing_up": "refund",
    "age_limit": "age",
    "verify_my_identity": "identity",
    "country_support": "country",
    "contactless_not_working": "contact",
    "edit_personal_details": "details",
    "atm_support": "machine",
}


def run(options: Any) -> None:
    """Run the sets named in --sets, --seeds times each.

    Raises:
        SystemExit: no --data, or it holds none of the files.
    """
    if not options.data:
        raise SystemExit("chain needs --data DIR (a folder with banking77/train.jsonl, medquad/train.jsonl)")
    rows: list[dict[str, Any]] = []
    for name in options.sets.split(","):
        records = list(_SETS[name](Path(options.data)))
        if 0 < options.rows < len(records):
            records = random.Random(0).sample(records, options.rows)
        seeds = [_one(name, records, seed, options.steps) for seed in range(options.seeds)]
        rows += [
            row("chain", name, metric, statistics.mean(seed[metric] for seed in seeds), None, "accuracy")
            for metric in seeds[0]
            if metric not in ("epsilon", "delta")
        ]
        rows += [
            row("chain", name, metric, max(seed[metric] for seed in seeds), None, metric)
            for metric in ("epsilon", "delta")
        ]
    show(rows, options.json)


def _one(name: str, records: list[dict[str, str]], seed: int, steps: int) -> dict[str, float]:
    """Accuracy on the test split by kind of model, and what the private one cost."""
    from appliance.data import store
    from tui.session import Session

    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder:
        source = Path(folder) / "records.jsonl"
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
        session = Session(Path(folder) / "home")
        base = session.demo_base()
        grouped = "group" in records[0]
        columns = {"text": "text", "label": "label"} | ({"group": "group"} if grouped else {})
        spec = {
            "path": str(source),
            "name": name,
            "columns": columns,
            "labels": sorted({record["label"] for record in records}),
            "unit_is_record": True,
            "seed": seed,
        }
        _finish(session, session.start_import(spec))
        for adapter, private in (("private", True), ("open", False)):
            settings: dict[str, Any] = {"private": private, "seed": seed}
            if private and steps:
                settings["steps"] = steps
            order = {"dataset": name, "base": base.name, "name": adapter, "settings": settings}
            _finish(session, session.start_training(order))
        _finish(session, session.start_quantising({"model": "private", "types": ["F16", "Q8_0", "Q4_K_M"]}))
        files = {model.facts["type"]: model.name for model in session.models() if model.kind == "gguf"}
        judged = [base.name, "open", "private", *files.values()]
        order = {"models": judged, "against": base.name, "dataset": name, "split": "test"}
        report = _finish(session, session.start_evaluation(order))
        scores = {found["name"]: found["accuracy"] for found in report["models"]}
        privacy = session.model("private").facts["privacy"]
        dataset = session.dataset(name)
        linear = _linear(store.read(dataset, "train"), store.read(dataset, "test"), dataset.labels, privacy)
    return {
        "base, untuned": scores[base.name],
        "LoRA, no privacy": scores["open"],
        "LoRA, private": scores["private"],
        **{f"private, {kind}": scores[file] for kind, file in files.items()},
        **linear,
        "epsilon": privacy["epsilon"],
        "delta": privacy["delta"],
    }


def _finish(session: Any, job_id: str) -> dict[str, Any]:
    from appliance.ops import jobs
    from tui.session import failure

    job = jobs.wait(session.home, job_id, 7200)
    if job.state != "done":
        raise failure(job)
    result: dict[str, Any] = job.end["result"]
    return result


def _linear(train: Any, test: Any, labels: tuple[str, ...], privacy: dict[str, Any]) -> dict[str, float]:
    """The yardsticks on the same split, the private one at the same epsilon and delta."""
    from appliance.evaluate.baseline import dp_linear, majority, tfidf_logistic

    number = {label: place for place, label in enumerate(labels)}
    texts, asked = [record.text for record in train], [record.text for record in test]
    answers = np.array([number[record.answer] for record in train])
    right = np.array([number[record.answer] for record in test])
    predict, _ = dp_linear(
        texts,
        answers,
        np.arange(len(texts)),
        len(labels),
        epsilon=privacy["epsilon"],
        delta=privacy["delta"],
        declared_units=privacy["declared_units"],
    )
    return {
        "majority": float(np.mean(right == majority(answers))),
        "TF-IDF + LR, no privacy": float(np.mean(tfidf_logistic(texts, answers)(asked) == right)),
        "DP linear, same epsilon": float(np.mean(predict(asked) == right)),
    }


def _banking(folder: Path, names: dict[str, str] | None) -> Iterator[dict[str, str]]:
    for line in (folder / "banking77" / "train.jsonl").read_text().splitlines():
        found = json.loads(line)
        if names is None or found["label"] in names:
            label = found["label"] if names is None else names[found["label"]]
            yield {"text": found["text"], "label": label}


def _medsec(folder: Path) -> Iterator[dict[str, str]]:
    sys.path.append(str(Path(__file__).resolve().parents[1] / "packaging"))
    from base_model.sources import SECTIONS, private_side

    for line in (folder / "medquad" / "train.jsonl").read_text().splitlines():
        found = json.loads(line)
        if found["qtype"] not in SECTIONS or not private_side(found["focus"]):
            continue
        masked = re.sub(re.escape(found["focus"]), "this disease", found["answer"], flags=re.IGNORECASE)
        words = masked.split()[:32]
        if len(words) == 32:
            yield {"text": " ".join(words), "label": SECTIONS[found["qtype"]], "group": found["focus"]}


_SETS = {
    "banking15": lambda folder: _banking(folder, _BANKING15),
    "banking77": lambda folder: _banking(folder, None),
    "medsec": _medsec,
}
