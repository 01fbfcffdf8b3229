"""What an operator sees of quantising: the plan, the proof table, the reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.core.home import open_home
from appliance.models import importing
from tui.cli.entry import run
from tui.cli.face import Face
from tui.cli.quantize import say_files
from tui.session import Session

SERVING = {
    "memory": {"context": 4096, "slots": 4, "kv": 10**8, "compute": 10**7, "total": 1_310_000_000},
    "tokens_per_second": {"prompt": 210.0, "answer": 31.4},
}


def made(kind: str, asked: str, proof: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": kind,
        "asked": asked,
        "name": f"lora-1-{kind.lower()}",
        "size": 397_000_000,
        "bits_per_weight": 5.013,
        "histogram": {"Q4_K": 145, "Q6_K": 24},
        "serving": SERVING,
        "proof": {"verdict": "PASS", "path": f"/site/{kind}.proof.json", **proof},
    }


F16 = {
    "tokens": {"strings": 151, "equal": 149, "excused": 2},
    "template": {"chats": 6, "equal": 6, "rendered": 6},
    "logits": {"F32": {"kl_mean": 1.6e-11, "same_top": 1.0}, "F16": {"kl_mean": 3.2e-07, "same_top": 0.999}},
}
INT4 = {
    "loss": {"kld_mean": 0.0311, "same_top": 0.941, "same_top_clear": 0.962, "perplexity_ratio": 1.012},
    "stepped_up": {"Q4_0": {"missed": ["kld_mean 0.12, limit 0.1"]}},
    "imatrix": {"tokens": 2456, "dataset": "cloister public texts 136519ed0ee3"},
}


def test_the_proof_table_has_every_figure_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    say_files(Face(None, False), [made("F16", "F16", F16), made("Q4_K_M", "Q4_0", INT4)])
    lines = capsys.readouterr().out.splitlines()
    row = "lora-1-f16 397.0 MB 5.01 3e-07 99.9% - 1.31 GB 31"
    assert lines[2].split() == row.split()
    row = "lora-1-q4_k_m 397.0 MB 5.01 0.0311 94.1% x1.012 1.31 GB 31"
    assert lines[3].split() == row.split()
    assert "same_top: how often the likeliest token is the same" in " ".join(lines)
    rest = "\n".join(lines[4:])
    for words in (
        "token ids of 149 of 151 texts (2 excused)",
        "6 of 6 chats; KL of the logits: F32 1.6e-11, F16 3.2e-07",
        "lora-1-q4_k_m: proof PASS, Q4_K_M, not Q4_0; 145 x Q4_K, 24 x Q6_K",
        "lora-1-f16: proof PASS; 145 x Q4_K",
        "stepped up from Q4_0: kld_mean 0.12, limit 0.1",
        "importance matrix of 2456 tokens: cloister public texts",
        "proof: /site/Q4_K_M.proof.json",
    ):
        assert words in rest
    assert max(map(len, lines)) < 80
    long = made("Q4_K_M", "Q4_0", INT4) | {"name": "n" * 40}
    say_files(Face(None, False), [long])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80 and any("x1.012" in line and "31" in line for line in lines)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    home = open_home(tmp_path / "home")
    importing.import_base(home, importing.DEMO_BASE, "demo-base", who="t")
    return home.path


def test_the_plan_starts_nothing(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["quantize", "demo-base", "--home", str(site), "--plan", "--to", "q4_0", "--device-ram", "10MB"]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 80
    assert "fits 10.0 MB" in out and "21 x Q4_0, 1 x Q6_K" in out and "Nothing was started." in out
    assert run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(file["type"], file["fits_device"]) for file in told["files"]] == [
        ("F16", False),
        ("Q4_0", False),
    ]
    assert Session(site).jobs() == []


def test_settings_reach_the_job(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs: list[dict[str, Any]] = []

    def start(self: Session, spec: dict[str, Any]) -> str:
        specs.append(spec)
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "start_quantising", start)
    (tmp_path / "public.txt").write_text("text")
    words = ["quantize", "demo-base", "--home", str(site), "--to", "q4_0,Q8_0"]
    words += ["--limit", "Q4_0.kld_mean=0.08", "--limit", "Q4_0.kld_max=2", "--tensor-type", "ffn_down=q6_k"]
    words += ["--output-type", "Q8_0", "--calibration", str(tmp_path / "public.txt")]
    assert run(words) == 130
    assert run(["quantize", "demo-base", "--home", str(site)]) == 130
    assert specs == [
        {
            "model": "demo-base",
            "types": ["Q4_0", "Q8_0"],
            "limits": {"Q4_0": {"kld_mean": 0.08, "kld_max": 2.0}},
            "tensor_types": [["ffn_down", "Q6_K"]],
            "output_type": "Q8_0",
            "imatrix": True,
            "calibration": str(tmp_path / "public.txt"),
        },
        {"model": "demo-base", "types": ["Q4_K_M", "Q8_0"]},
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--limit", "Q4_0=3"], "Q4_0=3 does not say which figure"),
        (["--limit", "Q4_0.kld_meen=3"], "Did you mean kld_mean? Q4_0 has: kld_mean,"),
        (["--limit", "Q9.kld_mean=3"], "Types with limits are: F32, F16, Q8_0"),
        (["--plan", "--context", "-1"], "from 1 to 512, the most that this model reads"),
        (["--plan", "--context", "0"], "context of 0 tokens"),
        (["--plan", "--context", "9" * 30], "from 1 to 512"),
        (["--context", "100"], "Add --plan"),
        (["--device-ram", "4"], "names no unit"),
        (["--device-ram", "0GB"], "Give 1MB to 1000TB"),
        (["--device-ram", "9" * 18 + "TB"], "Give 1MB to 1000TB"),
        (["--limit", "Q4_0.kld_mean=much"], "is no limit"),
        (["--to", "Q9_9"], "Q9_9 is not a type"),
        (["--evaluate"], "was not trained here, so there are no records"),
        (["--to", ","], "--to has an empty type"),
        (["--limit", "Q4_0.kld_mean=-1"], "Give 0 or more."),
        (["--limit", "Q4_0.same_top_clear=1.5"], "Give a number from 0 to 1."),
        (["--limit", "F16.tokens=2"], "Give a number from 0 to 1."),
        (["--tensor-type", "ffn_down"], "is no tensor type"),
        (["--plan", "--device-ram", "much"], "no amount of memory"),
        (["--plan", "--to", "Q9_9"], "Q9_9 is not a type"),
        (["--plan", "--to", "Q4_0", "--tensor-type", "nothing=Q8_0"], "No tensor is named nothing"),
    ],
)
def test_wrong_settings_are_told(
    words: list[str], said: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["quantize", "demo-base", "--home", str(site), *words]) == 2
    assert said in capsys.readouterr().err
    assert Session(site).jobs() == []
