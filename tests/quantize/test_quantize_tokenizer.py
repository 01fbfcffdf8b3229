"""Every kind of tokenizer: converted, read by llama.cpp, and judged against transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quantize_support import faults as model_faults
from quantize_support import make_model
from tokenizer_support import bytelevel, fallback, proof, save, strings_of, unigram

from appliance.core.errors import ModelRejected
from quantize import search, theirs, tokenizer
from quantize.pretokenizer import GPT2, LLAMA3, PLAIN, PRE_TOKENIZERS, QWEN2, WHOLE
from quantize.source import Checkpoint
from quantize.tokenizer import read_vocabulary
from quantize.vocabulary import CONTROL, UNUSED, USER_DEFINED

ALIKE = {"bloom": (False, True), "gpt-2": (False, True), "qwen2": (False, False)}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers is asked in this process: a child for each test would take seconds."""
    monkeypatch.setattr(tokenizer, "in_use", lambda folder: json.loads(theirs.describe(str(folder))))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save(bytelevel((LLAMA3, PLAIN)), tmp_path_factory.mktemp("words"))


@pytest.mark.parametrize(("signature", "name"), PRE_TOKENIZERS.items())
def test_every_name_of_the_table_splits_as_it_says(tmp_path: Path, signature: Any, name: str) -> None:
    checkpoint = save(bytelevel(*signature), tmp_path / "x")
    assert read_vocabulary(checkpoint).pre == name
    figures, faults = proof(checkpoint, tmp_path / "x.gguf")
    assert faults == []
    assert figures["equal"] == figures["strings"] > 140


def test_faults_of_a_vocabulary_fail_the_proof(words: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    right = read_vocabulary(words)
    assert proof(words, file)[1] == []
    for pre in ("gpt-2", "qwen2", "falcon"):
        assert "token ids differ" in proof(words, file, pre=pre)[1][0]
    assert proof(words, file, add_bos=False)[1] == ["adding BOS is False, not True"]
    assert proof(words, file, specials=right.specials | {"eos": 2})[1] == ["EOS is 2, not 6"]
    assert "differ" in proof(words, file, merges=(right.merges or [])[:-300])[1][0]
    swapped = [*right.tokens[:400], right.tokens[401], right.tokens[400], *right.tokens[402:]]
    assert "differ" in proof(words, file, tokens=swapped)[1][0]


def test_ids_beyond_the_vocabulary_are_padded(words: Checkpoint) -> None:
    vocabulary = read_vocabulary(words)
    assert vocabulary.tokens[-3:] == [f"[PAD{words.config['vocab_size'] - n}]" for n in (3, 2, 1)]
    assert vocabulary.types[-3:] == [UNUSED] * 3
    assert vocabulary.types[:7] == [CONTROL] * 7
    with pytest.raises(ModelRejected, match="embeddings"):
        read_vocabulary(replace(words, config=words.config | {"vocab_size": 1000}))


@pytest.mark.parametrize("kind", ["prepend", "first", "always", "never", "gemma"])
def test_bpe_with_byte_fallback(tmp_path: Path, here: None, kind: str) -> None:
    checkpoint = save(fallback(kind), tmp_path / "x")
    vocabulary = read_vocabulary(checkpoint)
    assert (vocabulary.model, vocabulary.prepend) == ("llama", kind == "prepend")
    assert vocabulary.space == {"first": "first", "always": "each"}.get(kind, "")
    figures, faults = proof(checkpoint, tmp_path / "x.gguf")
    assert faults == []
    assert figures["equal"] == figures["strings"]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("first", {"space": ""}),
        ("first", {"space": "each"}),
        ("first", {"space": "", "prepend": True}),
        ("always", {"space": "first"}),
        ("prepend", {"prepend": False}),
        ("gemma", {"prepend": True}),
    ],
)
def test_spaces_at_the_wrong_place_fail(tmp_path: Path, here: None, kind: str, changes: Any) -> None:
    checkpoint = save(fallback(kind), tmp_path / "x")
    assert "token ids differ" in proof(checkpoint, tmp_path / "x.gguf", **changes)[1][0]


def test_scores_and_bytes_decide(tmp_path: Path, here: None) -> None:
    checkpoint = save(fallback("gemma"), tmp_path / "x")
    right = read_vocabulary(checkpoint)
    upside = [-score for score in right.scores or []]
    assert "token ids differ" in proof(checkpoint, tmp_path / "x.gguf", scores=upside)[1][0]
    del checkpoint.tokenizer["model"]["vocab"]["<0x41>"]
    (checkpoint.folder / "tokenizer.json").write_text(json.dumps(checkpoint.tokenizer))
    with pytest.raises(ModelRejected, match="no token for 1 of the 256 bytes"):
        read_vocabulary(checkpoint)


def test_what_transformers_builds_counts_not_what_the_file_says(tmp_path: Path) -> None:
    """Its LlamaTokenizer puts the space at the beginning only, whatever tokenizer.json has."""
    checkpoint = save(fallback("prepend"), tmp_path / "x", tokenizer_class="LlamaTokenizer", legacy=False)
    vocabulary = read_vocabulary(checkpoint)
    assert (vocabulary.prepend, vocabulary.space) == (False, "first")
    assert proof(checkpoint, tmp_path / "x.gguf")[1] == []


@pytest.mark.parametrize(
    ("name", "kind", "space"),
    [
        ({"tokenizer_class": "LlamaTokenizer", "legacy": True}, "prepend", "each"),
        ({"tokenizer_class": "LlamaTokenizerFast", "add_prefix_space": False}, "first", ""),
        ({"tokenizer_class": "GemmaTokenizer"}, "gemma", ""),
    ],
)
def test_classes_of_transformers(tmp_path: Path, here: None, name: Any, kind: str, space: str) -> None:
    checkpoint = save(fallback(kind), tmp_path / "x", **name)
    assert read_vocabulary(checkpoint).space == space
    assert proof(checkpoint, tmp_path / "x.gguf")[1] == []


@pytest.mark.parametrize("kind", ["prepend", "first"])
def test_a_whole_model_with_it_is_proven(tmp_path: Path, here: None, kind: str) -> None:
    base = make_model(tmp_path / "base", bos_token_id=2, eos_token_id=7, pad_token_id=1)
    config = (base / "config.json").read_bytes()
    save(fallback(kind, 800), base)
    (base / "config.json").write_bytes(config)
    figures, faults = model_faults(base, tmp_path)
    assert faults == []
    assert figures["tokens"]["excused"] == 0
    assert figures["template"]["rendered"] == figures["template"]["equal"] == 6


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_unigram(tmp_path: Path, here: None, scheme: str) -> None:
    checkpoint = save(unigram(scheme=scheme), tmp_path / "x")
    figures, faults = proof(checkpoint, tmp_path / "x.gguf")
    assert faults == []
    # transformers reads Unigram's special tokens from any text; ours leaves a user's "<s>" text.
    spelled = sum(
        any(token in text for token in ("<s>", "</s>", "<unk>", "<pad>", "<|"))
        for text in strings_of(checkpoint)
    )
    assert 0 < figures["excused"] <= spelled
    assert "token ids differ" in proof(checkpoint, tmp_path / "x.gguf", scores=[0.0] * 903)[1][0]


def test_unigram_that_llama_cpp_reads_otherwise_is_refused(tmp_path: Path, here: None) -> None:
    checkpoint = save(unigram(byte_fallback=True), tmp_path / "x")
    with pytest.raises(ModelRejected, match=r"Unigram with byte fallback, where llama\.cpp writes <unk>"):
        read_vocabulary(checkpoint)
    plain = save(unigram(), tmp_path / "y")
    for change, words in (
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"normalizer": {"type": "NFKC"}}, "NFKC"),
        ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, "WhitespaceSplit"),
        ({"pre_tokenizer": None}, "does not write spaces"),
    ):
        (plain.folder / "tokenizer.json").write_text(json.dumps(plain.tokenizer | change))
        with pytest.raises(ModelRejected, match=words):
            read_vocabulary(plain)


@pytest.mark.parametrize("made", [lambda: bytelevel((QWEN2, PLAIN)), lambda: fallback("gemma")])
def test_nfc_is_written_and_applied(tmp_path: Path, here: None, made: Any) -> None:
    from tokenizers import normalizers

    one = made()
    steps = [one.normalizer] if one.normalizer else []
    one.normalizer = normalizers.Sequence([normalizers.NFC(), *steps])
    checkpoint = save(one, tmp_path / "x")
    assert read_vocabulary(checkpoint).normalizer == "NFC"
    assert proof(checkpoint, tmp_path / "x.gguf")[1] == []
    assert "token ids differ" in proof(checkpoint, tmp_path / "x.gguf", normalizer="")[1][0]


def test_phi_3s_special_tokens_swallow_white_space(tmp_path: Path, here: None) -> None:
    from tokenizers import AddedToken

    made = fallback("prepend")
    stays = ["<unk>", "<s>", "<|endoftext|>"]
    made.add_special_tokens(
        [
            *stays,
            *(
                AddedToken(text, rstrip=True, normalized=False)
                for text in ("<|user|>", "<|end|>", "<|system|>", "<|assistant|>", "<pad>")
            ),
        ]
    )
    made.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    checkpoint = save(made, tmp_path / "x")
    for entry in checkpoint.tokenizer["added_tokens"]:
        entry["rstrip"] = entry["content"] not in stays
        entry["special"] = entry["content"] != "</s>"
    (checkpoint.folder / "tokenizer.json").write_text(json.dumps(checkpoint.tokenizer))
    assert read_vocabulary(checkpoint).title("Mine") == "Mine phi3"
    figures, faults = proof(checkpoint, tmp_path / "x.gguf")
    assert faults == []
    assert figures["excused"] > 0  # llama.cpp leaves a user's "</s>" text
    assert "token ids differ" in proof(checkpoint, tmp_path / "x.gguf", rstrip=False)[1][0]


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_that_a_gguf_cannot_describe_are_found_by_the_proof(tmp_path: Path, flag: str) -> None:
    from tokenizers import AddedToken

    made = bytelevel((WHOLE,))
    made.add_tokens([AddedToken("[note]", normalized=False)])
    checkpoint = save(made, tmp_path / "plain")
    assert read_vocabulary(checkpoint).types[-4] == USER_DEFINED
    assert proof(checkpoint, tmp_path / "x.gguf")[1] == []
    made = bytelevel((WHOLE,))
    made.add_tokens([AddedToken("[note]", normalized=False, **{flag: True})])
    assert "token ids differ" in proof(save(made, tmp_path / flag), tmp_path / "x.gguf")[1][0]


def test_a_token_with_nul_is_refused(words: Checkpoint) -> None:
    """llama.cpp ends it there, finds two tokens alike, and aborts."""
    added = [*words.tokenizer["added_tokens"], {"id": 2541, "content": "a\0b", "special": False}]
    with pytest.raises(ModelRejected, match="NUL"):
        read_vocabulary(replace(words, tokenizer=words.tokenizer | {"added_tokens": added}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "WordPiece"}, "is WordPiece"),
        ({"vocab": None}, "damaged"),
        ({"dropout": 0.1}, "drops merges"),
        ({"end_of_word_suffix": "</w>"}, "marks parts of words"),
    ],
)
def test_other_kinds_are_refused(words: Checkpoint, change: dict[str, Any], said: str) -> None:
    model = {**words.tokenizer["model"], **change}
    with pytest.raises(ModelRejected, match=said):
        read_vocabulary(replace(words, tokenizer=words.tokenizer | {"model": model}))


def unknown(pattern: str, folder: Path) -> Checkpoint:
    assert ((pattern, PLAIN), False) not in PRE_TOKENIZERS
    return save(bytelevel((pattern, PLAIN)), folder)


def test_the_search_takes_what_fits_and_survives_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = unknown(f"(?:{GPT2})", tmp_path / "x")
    monkeypatch.setattr(search, "NAMES", {"whitespace": (False, False), **ALIKE})
    counts: dict[str, int] = {}
    monkeypatch.setattr(search, "_try", lambda *given, run=search._try: counts.update(run(*given)) or counts)
    assert read_vocabulary(checkpoint).pre == "gpt-2"
    assert counts["whitespace"] == -1
    assert counts["gpt-2"] > 2000 > 127 > counts["qwen2"]
    assert read_vocabulary(checkpoint).pre == "gpt-2"  # known now


@pytest.mark.slow
def test_the_search_knows_another_spelling(tmp_path: Path) -> None:
    spelled = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    pattern = spelled + LLAMA3.partition("'d)")[2]
    checkpoint = unknown(pattern, tmp_path / "x")
    assert read_vocabulary(checkpoint).pre == "smaug-bpe"  # and not llama-bpe, whose flags are others
    assert proof(checkpoint, tmp_path / "x.gguf")[1] == []


@pytest.mark.slow
def test_what_no_name_does_is_refused(tmp_path: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Punctuation, Sequence

    made = bytelevel((WHOLE,))
    made.pre_tokenizer = Sequence([Punctuation(), ByteLevel(add_prefix_space=False)])
    with pytest.raises(ModelRejected, match=r"no name for \(the nearest, .*agrees on [0-9]+ of 1"):
        read_vocabulary(save(made, tmp_path / "x"))
