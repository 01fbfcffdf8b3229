"""What passed the proof on its own texts and differs on others, and inputs that held the parent up."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantize_support import SPECIALS, faults, make_model
from tokenizer_support import save

from appliance.core.errors import ConfigWrong, ModelRejected
from appliance.core.files import sha256_folder
from appliance.core.home import Home, open_home
from appliance.models import registry, template_work
from appliance.models.llama import LlamaFile
from appliance.models.load import load_tokenizer
from appliance.models.prompt import render
from appliance.models.registry import Model
from quantize import kernel, overrides
from quantize import sentencepiece as spm
from quantize.convert import convert
from quantize.origin import Origin, open_origin
from quantize.overrides import check_overrides
from quantize.recipe import recipe_from
from quantize.shelf import valid
from quantize.source import open_checkpoint
from quantize.tokenizer import read_vocabulary
from quantize.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary, write_vocabulary

# --- merges

Merges = list[tuple[str, str]]
WORDS = ["a", "b", "c", "ab", "bc", "abc"]
ALL = [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]


def checked(merges: Merges, tokens: list[str], kinds: dict[str, int] | None = None) -> None:
    spm._check_merges(merges, tokens, [(kinds or {}).get(text, NORMAL) for text in tokens])


def test_all_merges_of_a_vocabulary_are_let_pass() -> None:
    checked(ALL, WORDS)
    checked(ALL[:2], [*WORDS], {"abc": USER_DEFINED})  # which is cut out of the text before
    checked([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")], WORDS)
    runs = [("▁" * left, "▁" * (total - left)) for total in (3, 4) for left in range(1, total)]
    tokens = ["▁" * length for length in range(1, 5)]
    for turn in (False, True):
        by_length = sorted([*runs, ("▁", "▁")], key=lambda pair: tuple(map(len, pair)), reverse=turn)
        checked(by_length, tokens)
    with pytest.raises(ModelRejected, match="by turns"):
        checked([runs[2], runs[0], runs[3], ("▁", "▁"), runs[1], runs[4]], tokens)


@pytest.mark.parametrize(
    ("merges", "tokens", "kinds", "said"),
    [
        (ALL[:3], WORDS, {}, "no merge for 'ab' 'c'"),
        (ALL[:2], WORDS, {"abc": CONTROL}, "no merge for"),  # it would come of what a user writes
        (ALL[:2], WORDS, {"abc": UNUSED}, "no merge for"),
        ([], ["a", "éa"], {}, "no merge for 'é' 'a'"),  # é is bytes for transformers, a character here
        ([("a", "b"), ("a", "bc"), ("b", "c"), ("ab", "c")], WORDS, {}, "by turns"),
        ([("<0x41>", "a")], ["a", "<0x41>a"], {}, "of a byte"),
        ([], ["a" * 100_000], {}, "too long tokens"),
    ],
)
def test_merges_that_llama_cpp_does_not_keep_to_are_refused(
    merges: Merges, tokens: list[str], kinds: dict[str, int], said: str
) -> None:
    with pytest.raises(ModelRejected, match=said):
        checked(merges, tokens, kinds)


def test_a_merge_left_out_shows_in_the_ids_and_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the check taken out, the two differ on a text that no proof has."""
    from tokenizers import Tokenizer, models, normalizers

    made = Tokenizer(models.BPE(**small(), unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.add_special_tokens(["<unk>", *SPECIALS])
    checkpoint = save(made, tmp_path / "x")
    with pytest.raises(ModelRejected, match="no merge for"):
        read_vocabulary(checkpoint)
    monkeypatch.setattr(spm, "_check_merges", lambda *given: None)
    write_vocabulary(tmp_path / "x.gguf", read_vocabulary(checkpoint))
    text = "ab"
    wanted = load_tokenizer(tmp_path / "x")(text, add_special_tokens=False)["input_ids"]
    with LlamaFile(tmp_path / "x.gguf", vocab_only=True) as llama:
        assert len(llama.tokenize(text, special=False)) == 1 < len(wanted)


def small() -> dict[str, Any]:
    """A vocabulary with the token "ab" that no merge makes."""
    texts = ["<unk>", *SPECIALS, *spm.byte_tokens(), "▁", "a", "b", "ab", "ba"]
    return {"vocab": {text: number for number, text in enumerate(texts)}, "merges": [("b", "a")]}


def test_whole_words_without_merges_are_refused() -> None:
    model = {**small(), "type": "BPE", "ignore_merges": True}
    content = {"model": model}
    empty = Vocabulary(model="", pre="", tokens=[], types=[], specials={}, add_bos=False, normalizer="")
    with pytest.raises(ModelRejected, match="takes whole words"):
        spm.read_fallback(content, empty)


def test_a_large_vocabulary_is_checked_in_seconds() -> None:
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 300)]
    merges = [(a, b) for a in letters for b in letters]
    began = time.process_time()
    checked(merges, [*letters, *map("".join, merges)])
    assert time.process_time() - began < 5


# --- rows that F16 flattens


@pytest.fixture
def plain(tmp_path: Path, bases: Callable[[str], Path]) -> Path:
    return Path(shutil.copytree(bases("llama"), tmp_path / "base"))


def scaled(base: Path, tensor: str, factor: float) -> Path:
    from safetensors.numpy import load_file, save_file

    weights = load_file(base / "model.safetensors")
    weights[tensor][40] *= np.float32(factor)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    return base


@pytest.mark.parametrize("tensor", ["model.embed_tokens.weight", "lm_head.weight"])
@pytest.mark.parametrize("factor", [1e-9, 1e-6])
def test_a_row_that_f16_flattens_is_refused(plain: Path, tmp_path: Path, tensor: str, factor: float) -> None:
    checkpoint = open_checkpoint(scaled(plain, tensor, factor))
    convert(checkpoint, tmp_path / "x.gguf", "F32", name="t")
    with pytest.raises(ModelRejected, match=rf"Tensor {tensor} has rows .* too small for F16"):
        convert(checkpoint, tmp_path / "x.gguf", "F16", name="t")


@pytest.mark.parametrize("factor", [0.0, 1e-20, 1e-3])  # never trained, decayed, small and well kept
def test_rows_that_f16_keeps_or_that_are_nothing_are_let_pass(
    plain: Path, tmp_path: Path, factor: float
) -> None:
    checkpoint = open_checkpoint(scaled(plain, "model.embed_tokens.weight", factor))
    convert(checkpoint, tmp_path / "x.gguf", "F16", name="t")


# --- expressions for tensors


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Origin]]:
    folder = tmp_path_factory.mktemp("overrides")
    base = make_model(folder / "base")
    home = open_home(folder / "home")
    registry.add(
        home, Model(name="tiny", kind="base", path=base, sha256=sha256_folder(base), size=1), who="t"
    )
    yield home, open_origin(home, "tiny")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(?<=ffn)_down", "cannot be planned"),  # Python's alone
        (r"weight\Z", "in another way"),
        ("nothing", "No tensor is named nothing"),
        (r"^(([a-z._0-9])+)+!|ffn", "was stopped|crashed"),
    ],
)
def test_an_expression_that_llama_cpp_does_not_read_so_is_refused(
    tiny: tuple[Home, Origin], monkeypatch: pytest.MonkeyPatch, pattern: str, said: str
) -> None:
    monkeypatch.setattr(overrides, "_PATIENCE", 5.0)
    recipe = recipe_from("Q4_0", {"tensor_types": [[pattern, "Q8_0"]]})
    with pytest.raises(ConfigWrong, match=said) as caught:
        check_overrides(*tiny, [recipe])
    assert caught.value.hint
    assert not list(tiny[0].path.glob("cloister-*"))


def test_plain_expressions_are_let_pass(tiny: tuple[Home, Origin]) -> None:
    types = [[r"blk\.0\.ffn_(up|gate)", "Q8_0"], ["ffn", "Q5_0"], ["attn_[kv]", "F16"]]
    check_overrides(*tiny, [recipe_from("Q4_0", {"tensor_types": types})])


def test_an_expression_without_end_is_config_wrong() -> None:
    with pytest.raises(ConfigWrong, match="no regular expression"):
        recipe_from("Q4_0", {"tensor_types": [["(" * 20_000, "Q8_0"]]})


# --- names, figures, templates


def test_a_long_name_is_cut_between_characters() -> None:
    notes = kernel._notes("é" * 100, 1, 1)
    assert notes[0].value.val_str.decode() == "é" * 63


def test_a_figure_that_is_no_number_is_null() -> None:
    figures = {"loss": {"kld_mean": math.nan, "kld_max": np.float64(math.inf), "x": [1.5, -math.inf, "NaN"]}}
    told = valid({"stepped_up": {"Q4_0": figures}, "n": 3, "yes": True, "none": None})
    assert json.loads(json.dumps(told, allow_nan=False)) == {
        "stepped_up": {"Q4_0": {"loss": {"kld_mean": None, "kld_max": None, "x": [1.5, None, "NaN"]}}},
        "n": 3,
        "yes": True,
        "none": None,
    }


LOOPS = (
    "{{ bos_token }}{% for tool in tools %}<|system|>{{ tool.function.name }}{{ tool | tojson }}{% endfor %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{{ pad_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
CHAT = [{"role": "user", "content": "Hello."}]


def test_a_template_that_loops_over_tools_is_proven(plain: Path, tmp_path: Path) -> None:
    """Also with a padding token in it, which transformers gives every template."""
    (plain / "chat_template.jinja").write_text(LOOPS)
    figures, found = faults(plain, tmp_path)
    assert found == [] and figures["template"]["rendered"] == figures["template"]["chats"] == 6


def test_tools_are_rendered_as_transformers_does(plain: Path) -> None:
    (plain / "chat_template.jinja").write_text(LOOPS)
    theirs = load_tokenizer(plain)
    words = {"bos_token": "<s>", "eos_token": "<|end|>", "pad_token": "<pad>"}
    for tools in (TOOLS, []):
        wanted = theirs.apply_chat_template(CHAT, tools=tools, tokenize=False, add_generation_prompt=True)
        assert render(LOOPS, CHAT, tools=tools, **words) == wanted
    assert render(LOOPS, CHAT, **words) == wanted  # as with an empty list
    asks = "{% if tools is none %}none{% else %}{{ tools | length }}{% endif %}"
    assert [render(asks, CHAT, tools=tools, **words) for tools in (None, [], TOOLS)] == ["none", "0", "1"]
    with pytest.raises(ModelRejected):
        render("{% for x in documents %}{% endfor %}", CHAT, **words)


def test_numbers_of_one_hash_do_not_hold_the_renderer_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_work, "_SECONDS", 0.5)
    step = 2**61 - 1
    began = time.process_time()
    with pytest.raises(ModelRejected, match="too much work"):
        render(
            f"{{{{ range(0, {step * 20_000}, {step}) | unique | list | length }}}}",
            CHAT,
            bos_token="",
            eos_token="",
        )
    assert time.process_time() - began < 2
