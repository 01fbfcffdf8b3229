"""What an operator sees of a training run: the plan, the refusals, the curves, the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import app_site as a
import pytest

from appliance.core.home import Home
from appliance.models import registry
from appliance.train.plan import Plan
from appliance.train.settings import METHODS, Settings
from appliance.train.statement import statement
from tui.cli.curves import terminal_curves
from tui.cli.entry import run
from tui.cli.lines import Lines, about, plan_lines, preview_lines, progress_line
from tui.session import Session

PREVIEW: dict[str, Any] = {
    **a.PLAN,
    "schedule": "linear",
    "base": "demo-base",
    "what": "LoRA of rank 4 on v_proj",
    "trained": 9216,
    "parameters": 3_606_272,
    "noise_ratio": 0.3,
    "protected": {
        "unit": "patient",
        "units": 1600,
        "records": 3210,
        "mean": 2.0,
        "largest": 8,
        "used": 1,
        "used_in": "step",
    },
    "epsilon": {"before": 1.2, "run": 7.5, "after": 7.99, "left": 0.01, "limit": 8.0, "delta": 6.2e-05},
    "memory": {"total": 500_000_000, "full": 2_500_000_000, "free": 8_000_000_000, "gpu": False},
    "seconds": 125.0,
    "warnings": [],
}
HISTORY = [
    {"step": step, "loss": 3.5 - 0.1 * step, "epsilon": 0.4 * step, "clipped": 0.9, "units": 80}
    | ({"validation_loss": 3.4 - 0.09 * step} if step % 5 == 0 else {})
    for step in range(1, 21)
]


def text(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A session with a base and a plan, whose runs are only written down."""
    specs: list[dict[str, Any]] = []
    planned: list[dict[str, Any]] = []

    def plan(self: Session, spec: dict[str, Any]) -> dict[str, Any]:
        planned.append(spec)
        return PREVIEW

    def start(self: Session, spec: dict[str, Any]) -> str:
        assert planned[-1] == spec, "what is started is what was planned"
        specs.append(spec)
        return "0001"

    def base(self: Session, name: str | None) -> registry.Model:
        return registry.Model(name="demo-base", kind="base", path=Path("x"), sha256="0", size=1)

    for name, call in (("plan_training", plan), ("start_training", start), ("base", base)):
        monkeypatch.setattr(Session, name, call)
    return specs


def test_a_plan_starts_nothing(started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "inbox", "--epsilon", "8", "--plan"]) == 0
    told = text([capsys.readouterr().out])
    assert started == []
    for words in (
        "1,600 patients with 2.0 records on average, 8 at most; of one patient no more than 1 in a step",
        "1.20 spent so far; this run alone 7.50; together 7.99 of 8, 0.01 left; delta 6.2e-05",
        "5.0e-03 of the clip bound",
        "about 0.5 GB; full fine-tuning about 2.5 GB; 8.0 GB are free here",
        "about 2 min; known better after the first steps",
        "9,216 of 3,606,272 parameters",
        "synthetic",
    ):
        assert words in told
    assert run(["train", "inbox", "--plan", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == PREVIEW and "1,600 patients" in err and started == []


def test_the_plan_comes_before_the_start(
    started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "inbox", "--detach", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"job": "0001", "plan": PREVIEW}
    assert err.index("protected") < err.index("Job 0001 runs") and len(started) == 1


def test_every_setting_can_be_given_and_the_defaults_are_the_products(
    started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "inbox", "--detach"]) == 0
    assert started[0]["settings"] == Settings().as_dict()
    words = (
        "--no-privacy --method prompt --objective distill --teacher big --rslora --dropout 0.1"
        " --prompt-tokens 5 --beta 0.3 --temperature 3 --distill-weight 0.7 --layers 2 --schedule cosine"
        " --warmup-steps 7 --early-stop 3 --precision bfloat16 --checkpointing --processes 2"
        " --micro-tokens 99 --max-tokens 64 --train-a --targets q_proj,k_proj --delta 1e-6 --epsilon 3"
        " --sampling record --sample-rate 0.1 --records-per-unit 4 --max-grad-norm 1 --rank 2 --alpha 3"
        " --steps 9 --batch 8 --epochs 2 --learning-rate 0.1 --weight-decay 0.2 --seed 5 --plant-secrets 16"
    )
    assert run(["train", "inbox", "--detach", *words.split()]) == 0
    given, usual = started[1]["settings"], Settings().as_dict()
    assert [name for name in usual if given[name] == usual[name]] == []
    assert (
        given["private"] is False and given["freeze_a"] is False and given["targets"] == ["q_proj", "k_proj"]
    )


def test_the_plan_is_told_once_unless_the_job_goes_by_another() -> None:
    def told(event: dict[str, Any], planned: dict[str, Any] | None) -> str:
        lines: list[str] = []
        Lines(lines.append, live=False, planned=planned).show({"event": "plan", **event})
        assert all(len(line) < 80 for line in lines)
        return text(lines)

    assert told(a.PLAN, {**PREVIEW, "epsilon_before": 0.0}) == ""
    assert "0.00 spent before" in told(a.PLAN, None)
    for other in ({"noise_multiplier": 4.2}, {"epsilon_before": 1.0}, {"steps": 3}, {"warnings": ["Late."]}):
        assert "Protected: each of 1,600 patients" in told({**a.PLAN, **other}, PREVIEW), other


def test_a_training_is_followed_with_the_plan_that_was_shown(
    started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    a.tell(a.job(home, "train", "train inbox"), "plan", **a.PLAN)
    a.tell(home.jobs / "0001", "failed", code="no-room", message="Full.", hint="Free some.", exit=9)
    assert run(["train", "inbox"]) == 9
    assert "Protected: each of" not in capsys.readouterr().out, "the plan is told twice"


def test_epsilon_must_be_above_nothing(
    started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in ("0", "-1", "nan"):
        assert run(["train", "inbox", "--epsilon", wrong]) == 2
        assert "error: Epsilon must be above 0" in capsys.readouterr().err
    assert started == []


def test_help_teaches_in_groups(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run(["train", "--help"]) == 0
    told = capsys.readouterr().out
    places = [
        told.index(panel)
        for panel in ("Privacy:", "What is trained", "On what loss", "Schedule:", "Machine:")
    ]
    assert places == sorted(places)
    assert "NO PROTECTION" in told and all(method in told for method in METHODS)


def test_no_privacy_is_loud() -> None:
    bare = {**PREVIEW, "protected": None, "epsilon": None, "noise_multiplier": None}
    assert "NO PRIVACY: nobody is protected" in text(preview_lines(bare))
    assert "NO PRIVACY: nobody is protected" in text(plan_lines({**a.PLAN, "noise_multiplier": None}))


def test_warnings_are_part_of_every_plan_and_lines_fit() -> None:
    warned = {**PREVIEW, "warnings": ["The noise is " + "very " * 40 + "long."]}
    lines = preview_lines(warned)
    assert "WARNING The noise is very" in text(lines) and max(map(len, lines)) < 80
    assert "Warning: no." in plan_lines({**a.PLAN, "warnings": ["no."]})


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2.0, "about 10 s"), (62.0, "about 60 s"), (100.0, "about 2 min"), (9000.0, "about 2 h")],
)
def test_guessed_times_do_not_look_exact(seconds: float, said: str) -> None:
    assert about(seconds).startswith(said + ";")
    assert about(None) == "known after the first steps"


def test_a_training_line_says_the_step() -> None:
    event = {"stage": "train", "done": 20, "total": 55, "loss": 2.9, "clipped": 0.6, "epsilon": 3.1}
    assert "20/55" in progress_line(event, left=72.0, width=79)
    assert " 36%" in progress_line({**event, "loss": None}, left=72.0, width=79)


def test_the_curves_fit_and_say_where_they_end() -> None:
    lines = terminal_curves(HISTORY, 79, 12)
    assert len(lines) == 13 and max(map(len, lines)) < 80
    assert sum("o" in line for line in lines[:-1]) >= 3 and any("-" in line for line in lines[:-2])
    assert lines[-1] == "training (-) 1.500  validation (o) 1.600  epsilon <= 8.00  clipped 90% to 90%"
    assert terminal_curves(HISTORY[:1], 79, 12) == []
    bare = [{**step, "epsilon": None} for step in HISTORY]
    assert "epsilon" not in terminal_curves(bare, 79, 12)[-1]


def entered(home: Home, privacy: dict[str, Any] | None, **training: Any) -> None:
    facts = {
        "task": {"kind": "label", "labels": ["a", "b"]},
        "privacy": privacy,
        "training": {"settings": Settings().as_dict(), "trained": 9216, "history": HISTORY, **training},
    }
    made = registry.Model(
        name="lora-0009", kind="adapter", path=home.models / "x", sha256="0" * 64, size=1, facts=facts
    )
    registry.add(home, made, who="mira")


def test_the_card_tells_the_whole_claim(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    names = set(Plan.__dataclass_fields__) & set(a.PLAN)
    plan = Plan(weight_decay=0.3, **{name: a.PLAN[name] for name in names})
    claim = statement(plan, Settings(sample_rate=0.5)) | {"epsilon": 7.99, "epsilon_limit": 8.0}
    entered(home, claim, stopped="early", kept_step=15, curves="/reports/0009-curves.png")
    assert run(["model", "card", "lora-0009"]) == 0
    out = capsys.readouterr().out
    told = text([out])
    for name, value in claim.items():
        assert name.replace("_", " ") in told
        if isinstance(value, str):
            assert value in told, name
    for part in claim["not_protected"]:
        assert f"- {part}" in told
    assert "20, the weights of step 15 were kept" in told and "validation got no better" in told
    assert "/reports/0009-curves.png" in told and "training (-) 1.500" in told
    assert max(map(len, out.splitlines())) < 100


def test_the_card_of_a_model_without_privacy_is_loud(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    entered(home, None)
    assert run(["model", "card", "lora-0009"]) == 0
    assert "NO PRIVACY: nobody is protected" in text([capsys.readouterr().out])
    assert run(["model", "card", "lora-0009", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["privacy"] is None


def test_the_card_names_its_privacy_audits(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    entered(home, None)
    told = {"job": "0012", "created": "2026-01-01", "model": "lora-0009", "verdict": "FAIL"}
    report = told | {"verdicts": {"lora-0009": "FAIL", "lora-0009-q8_0": "PASS"}}
    path = home.reports / "0012-privacy.json"
    path.write_text(json.dumps(report))
    assert run(["model", "card", "lora-0009"]) == 0
    assert f"audit    {path}  privacy audit FAIL" in capsys.readouterr().out
    assert run(["model", "card", "lora-0009", "--json"]) == 0
    (audit,) = json.loads(capsys.readouterr().out)["privacy_audits"]
    assert (audit["job"], audit["verdict"], audit["path"]) == ("0012", "FAIL", str(path))
