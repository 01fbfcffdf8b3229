"""Real vocabularies: our conversion, opened by llama.cpp, against the ids their own tokenizers give.

llama.cpp's tests carry vocabularies of well-known models (models/ggml-vocab-*.gguf) with texts and the
expected ids beside them. Each is put back into the form of a tokenizer.json, converted by us as if it
came with a checkpoint, and its ids are compared with those expected. `--data` names the folder of those
files; else the source distribution of the installed llama-cpp-python is fetched with pip.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.sdist import llama_source
from bench.table import row, show

_END = "\n__ggml_vocab_test__\n"
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_SAME = {"starcoder": "smollm", "command-r": "smollm", "refact": "smollm", "mpt": "gpt-2"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How many of `texts` have the expected ids: by our file, and by transformers with what we rebuilt.

    `found` is how the file names its tokenizer; `proof` the texts of the proof on which the two agree,
    `excused` those of them that differ in a way the proof allows (verify.judge_tokens).
    """

    name: str
    found: str
    texts: int
    ours: int
    theirs: int
    proof: int
    excused: int
    proof_texts: int


def run(options: Any) -> None:
    """Every vocabulary that has texts beside it."""
    rows = []
    with fixtures(Path(options.data) if options.data else None) as folder:
        for file in with_texts(folder):
            found = compare(file)
            case = f"{found.name} as {found.found}"
            rows.append(row("vocabularies", case, "expected ids", found.ours, found.texts, "texts"))
            rows.append(row("vocabularies", case, "rebuilt as it was", found.theirs, found.texts, "texts"))
            rows.append(row("vocabularies", case, "proof", found.proof, found.proof_texts, "texts"))
            rows.append(row("vocabularies", case, "of these excused", found.excused, None, "texts"))
    show(rows, options.json)


@contextmanager
def fixtures(folder: Path | None) -> Iterator[Path]:
    """The folder of the vocabularies: the one given, or out of the fetched source distribution.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be fetched here.
    """
    if folder:
        yield folder
        return
    with llama_source(["models/ggml-vocab-"]) as source:
        yield source / "models"


def with_texts(folder: Path) -> list[Path]:
    """The vocabularies of BPE kinds that have texts and expected ids."""
    files = sorted(folder.glob("ggml-vocab-*.gguf"))
    return [file for file in files if Path(f"{file}.inp").exists() and "bert" not in file.name]


def compare(file: Path) -> Outcome:
    """Rebuild, convert and compare one vocabulary."""
    from appliance.models.llama import LlamaFile
    from appliance.models.load import load_tokenizer
    from quantize.reference import tokens
    from quantize.source import Checkpoint
    from quantize.texts import NASTY
    from quantize.tokenizer import read_vocabulary
    from quantize.verify import judge_tokens, read_tokens
    from quantize.vocabulary import write_vocabulary

    texts = Path(f"{file}.inp").read_bytes().decode().split(_END)
    lines = Path(f"{file}.out").read_text().split("\n")[: len(texts)]
    expected = [[int(number) for number in line.split()] for line in lines]
    with tempfile.TemporaryDirectory(prefix="cloister-") as made:
        work = Path(made)
        config, words, tokenizer = rebuild(file)
        for name, content in (("config", config), ("tokenizer_config", words), ("tokenizer", tokenizer)):
            (work / f"{name}.json").write_text(json.dumps(content))
        vocabulary = read_vocabulary(
            Checkpoint(
                folder=work,
                config=config,
                generation={},
                tokenizer=tokenizer,
                tokenizer_config=words,
                chat_template="",
                tensors={},
            )
        )
        write_vocabulary(work / "ours.gguf", vocabulary)
        theirs = load_tokenizer(work)
        wanted = tokens(theirs, list(NASTY)) | {"ends": [], "chats": [], "width": len(vocabulary.tokens)}
        with LlamaFile(work / "ours.gguf", vocab_only=True) as llama:
            ours = [llama.tokenize(text, special=False) for text in texts]
            proof, _ = judge_tokens(list(NASTY), wanted, read_tokens(llama, list(NASTY)) | {"ends": []})
    read = [theirs(text, add_special_tokens=False)["input_ids"] for text in texts]
    return Outcome(
        name=file.stem.removeprefix("ggml-vocab-"),
        found=vocabulary.pre if vocabulary.model == "gpt2" else vocabulary.model,
        texts=len(texts),
        ours=sum(a == b for a, b in zip(ours, expected, strict=True)),
        theirs=sum(a == b for a, b in zip(read, expected, strict=True)),
        proof=proof["equal"] + proof["excused"],
        excused=proof["excused"],
        proof_texts=proof["strings"],
    )


def rebuild(file: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """config.json, tokenizer_config.json and tokenizer.json as the model's own must have been."""
    from gguf import GGUFReader

    reader = GGUFReader(file)

    def read(key: str) -> Any:
        field = reader.get_field(f"tokenizer.ggml.{key}")
        return None if field is None else field.contents()

    tokens, types = read("tokens"), read("token_type")
    special = {_CONTROL: True, _USER_DEFINED: False}
    added = [
        _added(i, text, special[kind])
        for i, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in special
    ]
    vocab = {text: i for i, text in enumerate(tokens) if types[i] != _UNUSED or not text.startswith("[PAD")}
    kind = read("model")
    model: dict[str, Any] = {"type": "BPE", "vocab": vocab, "merges": read("merges")}
    split: Any = None
    normalizer: Any = None
    if kind == "gpt2":
        split, model["ignore_merges"] = _structure(read("pre"))
    else:
        unknown = tokens[read("unknown_token_id")]
        model |= {"byte_fallback": True, "fuse_unk": True, "unk_token": unknown}
        added.append(_added(vocab[unknown], unknown, True))
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        normalizer = replace
        if kind == "llama":
            steps = [{"type": "Prepend", "prepend": "▁"}, replace]
            normalizer = {"type": "Sequence", "normalizers": steps}
            odd = [text for text, kind in zip(tokens, types, strict=True) if kind != _NORMAL]
            model["merges"] = _merges(vocab, dict(zip(tokens, read("scores"), strict=True)), odd)
    tokenizer = {
        "version": "1.0",
        "added_tokens": sorted(
            {entry["id"]: entry for entry in added}.values(), key=lambda entry: entry["id"]
        ),
        "normalizer": normalizer,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    bos, eos = read("bos_token_id"), read("eos_token_id")
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokens[eos], "bos_token": tokens[bos]}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(tokens)}
    return config, words, tokenizer


def _added(number: int, text: str, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": text, "special": special, **flags}


def _structure(name: str) -> tuple[dict[str, Any], bool]:
    """The pre-tokenizer of tokenizer.json that llama.cpp calls `name`."""
    from quantize.pretokenizer import DIGITS, PLAIN, PRE_TOKENIZERS, PUNCTUATION, WHOLE

    parts, whole_words = next(key for key, pre in PRE_TOKENIZERS.items() if pre == _SAME.get(name, name))
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    named = {
        WHOLE: level | {"use_regex": True},
        PLAIN: level | {"use_regex": False},
        DIGITS: {"type": "Digits", "individual_digits": True},
        PUNCTUATION: {"type": "Punctuation", "behavior": "Contiguous"},
    }
    splits = [
        named.get(part)
        or {"type": "Split", "pattern": {"Regex": part}, "behavior": "Isolated", "invert": False}
        for part in parts
    ]
    return {"type": "Sequence", "pretokenizers": splits}, whole_words


def _merges(vocab: dict[str, int], scores: dict[str, float], skipped: list[str]) -> list[str]:
    """All ways to put a token together from two, best score first (as transformers makes them)."""
    from transformers.tokenization_utils_base import generate_merges

    known = {text: scores[text] for text in vocab}
    return [" ".join(pair) for pair in generate_merges(vocab, known, skipped)]
