"""How one file is quantised: its type, what departs from llama.cpp's own choice, and the ladder.

A type that comes out too far from F16 is answered by the next rung: first the same type with an
importance matrix, then a larger type. IQ4_XS leads to Q4_K_M and not to Q4_0, which is larger and
worse (published mean KLD of Llama 3 8B: IQ4_XS .036, Q4_0 .072, Q4_K_M .031, .028 with a matrix).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from gguf import GGMLQuantizationType

from appliance.core.errors import ConfigWrong

# llama.cpp's enum llama_ftype
QUANTISED = {"IQ4_XS": 30, "Q4_0": 2, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "Q8_0": 7}
TYPES = ("F16", *QUANTISED)
# What a single tensor may be stored as: all that needs no importance matrix.
TENSOR_TYPES = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0"),
    *("Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K", "Q2_K"),
)

_LADDER = (
    ("Q4_0", False),
    ("Q4_K_M", False),
    ("Q4_K_M", True),
    ("Q5_K_M", False),
    ("Q6_K", False),
    ("Q8_0", False),
)
_STARTS = {"IQ4_XS": (("IQ4_XS", False), ("IQ4_XS", True), *_LADDER[1:])}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to quantise. `tensor_types`: (regular expression, type), the first that matches
    anywhere in a tensor's name counts; `output_type` and `embedding_type` are types, or "".
    """

    kind: str
    matrix: bool = False
    tensor_types: tuple[tuple[str, str], ...] = ()
    output_type: str = ""
    embedding_type: str = ""
    calibration: str = ""

    @property
    def label(self) -> str:
        """What people call it."""
        return self.kind + (" + imatrix" if self.matrix else "") + (" (own types)" if self._own else "")

    @property
    def suffix(self) -> str:
        """End of its files' names: one name never stands for two contents."""
        ends = ["imatrix"] if self.matrix else []
        if self._own or self.calibration:
            told = json.dumps([self.tensor_types, self.output_type, self.embedding_type, self.calibration])
            ends.append(hashlib.sha256(told.encode()).hexdigest()[:6])
        return "-".join([self.kind.lower(), *ends])

    @property
    def _own(self) -> bool:
        return bool(self.tensor_types or self.output_type or self.embedding_type)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"tensor_types": [list(pair) for pair in self.tensor_types]}


def recipe_from(kind: str, spec: dict[str, Any], calibration: str = "") -> Recipe:
    """The recipe that a job's spec asks for `kind`; `calibration` is the SHA-256 of own texts, or "".

    Raises:
        ConfigWrong: an unknown type, or an expression that is none.
    """
    if kind not in TYPES:
        raise ConfigWrong(f"{kind} is not a type.", f"Choose from {', '.join(TYPES)}.")
    if kind == "F16":
        return Recipe(kind=kind)
    pairs = tuple((str(pattern), _tensor_type(name)) for pattern, name in spec.get("tensor_types") or ())
    for pattern, _ in pairs:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as problem:
            raise ConfigWrong(
                f"{pattern} is no regular expression: {problem}.", "An example: --tensor-type ffn_down=Q6_K"
            ) from problem
    made = Recipe(
        kind=kind,
        matrix=bool(spec.get("imatrix") or calibration),
        tensor_types=pairs,
        output_type=_tensor_type(spec.get("output_type") or ""),
        embedding_type=_tensor_type(spec.get("embedding_type") or ""),
        calibration=calibration,
    )
    return _usable(made)


def read_tensor_types(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs for a spec's `tensor_types`, from texts such as "ffn_down=Q6_K".

    Raises:
        ConfigWrong: not of that form, or no type.
    """
    pairs = []
    for text in texts:
        pattern, _, name = text.rpartition("=")
        if not pattern:
            raise ConfigWrong(f"{text} is no tensor type.", "Give REGEX=TYPE, as in ffn_down=Q6_K.")
        pairs.append((pattern, _tensor_type(name)))
    return pairs


def ladder(first: Recipe) -> list[Recipe]:
    """`first`, and what is tried after it, each closer to F16 than the one before."""
    steps = _STARTS.get(first.kind, _LADDER)
    at = next(number for number, (kind, _) in enumerate(steps) if kind == first.kind)
    rungs = [first]
    for kind, matrix in steps[at:]:
        rung = _usable(replace(first, kind=kind, matrix=matrix or first.matrix))
        if rung not in rungs:
            rungs.append(rung)
    return rungs


def _usable(recipe: Recipe) -> Recipe:
    """Q8_0 takes no account of a matrix: its bytes are the same with and without."""
    return replace(recipe, matrix=False, calibration="") if recipe.kind == "Q8_0" else recipe


def tensor_type_code(name: str) -> int:
    """ggml's number of a tensor type."""
    return int(GGMLQuantizationType[name])


def _tensor_type(name: str) -> str:
    name = name.strip().upper()
    if name and name not in TENSOR_TYPES:
        raise ConfigWrong(f"{name} is not a tensor's type.", f"Choose from {', '.join(TENSOR_TYPES)}.")
    return name
