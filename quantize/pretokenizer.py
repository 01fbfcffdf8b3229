# ruff: noqa: RUF001
"""The names by which llama.cpp knows ways to split text, looked up by structure.

A name is a claim; the proof is that token ids agree (verify.py). What is not in the table is searched
for (search.py). Each row agreed on all proof texts with a tokenizer trained for it
(tests/quantize/test_quantize_tokenizer.py).
"""

from __future__ import annotations

from typing import Any

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + _SPACES
_WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
LLAMA3 = _ENGLISH + _WORD + r"|\p{N}{1,3}" + _REST
QWEN2 = _ENGLISH + _WORD + r"|\p{N}" + _REST
QWEN35 = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}" + r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _SPACES
UFAKZEKA = _WORD[1:] + r"|\p{N}" + _REST
SEED = _ENGLISH + _WORD + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + _SPACES
MINICPM5 = _ENGLISH + _WORD + r"|\p{N}+" + _REST
JAIS2 = (
    _ENGLISH
    + _WORD
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    + "".join(rf"|\s{{{count}}}(?!\S)" for count in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))
    + r"|\s{1}"
)
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    f"{_UPPER}*{_LOWER}+{_ENGLISH}?|{_UPPER}+{_LOWER}*{_ENGLISH}?"
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    + _SPACES
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*" + _SPACES
)
_DEEPSEEK_LETTERS = (
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-"
    r"ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ"
    r"-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)
_DEEPSEEK_MARKS = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"
_HAN = "[一-龥ࠀ-一가-퟿]+"
WHOLE = "byte-level with regex"
PLAIN = "byte-level"
DIGITS = "single digits"
PUNCTUATION = "runs of punctuation"

Signature = tuple[tuple[str, ...], bool]
# (parts of the pre-tokenizer, whether whole words skip the merges) -> llama.cpp's name
PRE_TOKENIZERS: dict[Signature, str] = {
    ((WHOLE,), False): "gpt-2",
    ((GPT2, PLAIN), False): "gpt-2",
    ((DIGITS, WHOLE), False): "smollm",
    ((DIGITS, GPT2, PLAIN), False): "smollm",
    ((LLAMA3, PLAIN), True): "llama-bpe",
    ((LLAMA3, PLAIN), False): "smaug-bpe",
    ((QWEN2, PLAIN), False): "qwen2",
    ((QWEN35, PLAIN), False): "qwen35",
    ((PUNCTUATION, WHOLE, "[0-9][0-9][0-9]"), False): "falcon",
    ((r"\p{N}{1,3}", _CJK, _DEEPSEEK3, PLAIN), False): "deepseek-v3",
    ((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, DIGITS, PLAIN), False): "deepseek-coder",
    ((r"[\r\n]", _DEEPSEEK_LETTERS, _DEEPSEEK_MARKS, r"\s+$", _HAN, DIGITS, PLAIN), False): "deepseek-llm",
    ((UFAKZEKA, PLAIN), False): "ufakzeka",
    ((SEED, PLAIN), False): "seed-coder",
    ((r"\p{N}{1,3}", MINICPM5, PLAIN), True): "minicpm5",
    ((JAIS2, PLAIN), False): "jais-2",
    ((O200K, PLAIN), True): "granite-embed-multi-97m",
}


def parts(node: Any) -> tuple[str, ...]:
    """The steps of a pre-tokenizer of tokenizer.json, each as one string of `PRE_TOKENIZERS`."""
    node = node or {}
    kind, behaviour = node.get("type"), node.get("behavior")
    if kind == "Sequence":
        return tuple(part for inner in node["pretokenizers"] for part in parts(inner))
    if kind == "ByteLevel" and not node.get("add_prefix_space"):
        return (WHOLE if node.get("use_regex", True) else PLAIN,)
    if kind == "Digits" and node.get("individual_digits"):
        return (DIGITS,)
    if kind == "Punctuation" and behaviour == "Contiguous":
        return (PUNCTUATION,)
    if kind == "Split" and (behaviour, bool(node.get("invert"))) in (("Isolated", False), ("Removed", True)):
        pattern = str(node.get("pattern", {}).get("Regex"))
        return (pattern.replace("\r", r"\r").replace("\n", r"\n"),)
    return (f"unknown {kind}",)
