"""The shipped base model and the recipe that makes one like it."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "appliance" / "models" / "base"
# On the path only here: a package `packaging` at the root would hide the library of that name.
sys.path.insert(0, str(ROOT / "packaging"))

pytest.importorskip("torch")

from base_model import forms, net, pack, sources  # noqa: E402
from base_model.__main__ import prepare  # noqa: E402
from base_model.export import TEMPLATE, export, facts, forward_difference  # noqa: E402
from base_model.pretrain import Settings, pretrain  # noqa: E402

TINY = net.Shape(hidden=32, inner=64, layers=1, heads=2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder laid out like the real one, with made-up rows and a Banking77 that must not be read."""
    dice, folder = random.Random(5), tmp_path / "data"
    words = [
        "card",
        "money",
        "song",
        "alarm",
        "weather",
        "hotel",
        "doctor",
        "note",
        "pain",
        "table",
        "light",
        "paper",
    ]

    def say() -> str:
        return " ".join(dice.choices(words, k=8))

    def put(name: str, rows: list[dict[str, str]]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    intents = [("play_music", "home"), ("new_card", "banking"), ("book_hotel", "travel")]
    clinc = [{"text": say(), "label": label, "domain": domain} for label, domain in intents * 20]
    put("clinc150/train.jsonl", [*clinc, {"text": "outofscope", "label": "oos", "domain": "oos"}])
    put("clinc150/val.jsonl", clinc[:5])
    put(
        "hwu64/train.jsonl",
        [{"text": say(), "label": "alarm_set", "scenario": "alarm", "split": "train"} for _ in range(40)],
    )
    put("snips/train.jsonl", [{"text": say(), "label": "GetWeather"} for _ in range(40)])
    put("banking77/train.jsonl", [{"text": "zebracrossing fee", "label": "card_arrival"}])
    cases = [
        {
            "focus": f"Mallory{number} disease (MD)",
            "qtype": dice.choice(["symptoms", "causes"]),
            "question": f"What is Mallory{number} disease (MD) ?",
            "answer": f"Mallory{number} disease (MD) is rare. " + say() * 8,
        }
        for number in range(60)
    ]
    put("medquad/train.jsonl", cases[:50])
    put("medquad/val.jsonl", cases[50:])
    turns = "Doctor: how are you?\nPatient: i have a table on my light paper."
    put("mts_dialog/train.jsonl", [{"label": "GENHX", "note": say(), "dialogue": turns} for _ in range(9)])
    for file in sources.FILES:
        if file.endswith(".txt"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(" ".join(say() for _ in range(80)))
    return folder


def text(documents: list[forms.Document]) -> str:
    return "\n".join("".join(stretch for stretch, _ in document) for document in documents)


def test_corpus_leaves_out_banking77_and_private_diseases(data: Path) -> None:
    corpus = forms.build(data, seed=1)
    everything = text(corpus.train + corpus.held)
    assert "zebracrossing" not in everything
    assert "outofscope" not in everything
    private = {number for number in range(60) if sources.private_side(f"Mallory{number} disease (MD)")}
    assert 10 < len(private) < 40
    named = {int(number) for number in re.findall(r"Mallory(\d+) disease", everything)}
    assert named == set(range(60)) - private


def test_held_out_rows_are_in_no_form_in_the_training_part(data: Path) -> None:
    corpus = forms.build(data, seed=1)
    training = text(corpus.train)
    assert corpus.held_messages
    assert corpus.held_medical
    assert not [row for row in corpus.held_messages if f"Message: {row.text}\n" in training]
    assert not [row for row in corpus.held_medical if row.question in training]


def test_excerpts_hide_the_name_of_the_disease(data: Path) -> None:
    for row in sources.medical(data):
        assert "mallory" not in forms.masked(row.answer, row.focus).lower()


def test_corpus_and_run_are_the_same_every_time(data: Path, tmp_path: Path) -> None:
    settings = Settings(steps=6, length=32, batch=4, workers=1, brief="float32")
    tokenizer = BASE / "tokenizer.json"
    kept = []
    for name in ("first", "second"):
        work = tmp_path / name
        filled = prepare(data, work, tokenizer, settings, TINY)
        if name == "second":
            pretrain(work, filled, TINY, stop=3)
        kept.append((filled, pretrain(work, filled, TINY)[0]))
    (one, straight), (two, resumed) = kept
    assert one == two
    assert all(bool((straight[name] == resumed[name]).all()) for name in straight)
    with pytest.raises(ValueError, match="another run"):
        pretrain(tmp_path / "first", Settings(steps=7, workers=1), TINY)
    export(straight, TINY, tokenizer, tmp_path / "out")
    assert facts(tmp_path / "out", TINY)["parameters"] == sum(value.numel() for value in straight.values())


def test_only_the_label_weighs_four_and_options_weigh_nothing() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    document = forms.labelled("my card is gone", "lost", options="lost, late")
    ids, weights = pack.encode(tokenizer, [document])[0]
    by_weight = {
        weight: tokenizer.decode(ids[weights == weight].tolist(), skip_special_tokens=False)
        for weight in set(weights.tolist())
    }
    assert by_weight[4.0] == " lost</s>"
    assert by_weight[1.0] == " my card is gone"
    assert "Options: lost, late" in by_weight[0.0]


def test_shipped_base_loads_is_finite_and_small() -> None:
    from safetensors.torch import load_file

    weights = load_file(BASE / "model.safetensors")
    assert all(value.isfinite().all() for value in weights.values())
    assert {str(value.dtype) for value in weights.values()} == {"torch.float16"}
    assert sum(file.stat().st_size for file in BASE.iterdir()) <= 16_000_000
    assert forward_difference(BASE, net.Shape()) < 1e-3


def test_shipped_tokenizer_and_template_agree_with_transformers_and_the_recipe() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    settings = json.loads((BASE / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert len(tokenizer) == 4096
    names = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    assert tokenizer.convert_tokens_to_ids(names) == list(range(6))
    assert (BASE / "chat_template.jinja").read_text() == TEMPLATE
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Message: my card is gone\nLabel?"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    trained = "".join(stretch for stretch, _ in forms.labelled("my card is gone", "x")[:-1])
    assert shown == trained


def test_card_tells_the_truth_about_what_can_be_counted() -> None:
    card = (BASE / "CARD.md").read_text()
    counted = facts(BASE, net.Shape())
    for name in ("parameters", "weights bytes", "tokenizer bytes"):
        assert f"{counted[name]:,}" in card
    for owed in ("CLINC150", "HWU64", "Snips", "MedQuAD", "MTS-Dialog", "CC BY", "Banking77"):
        assert owed in card
