"""What a run holds in memory, worked out from the base's shapes before anything is loaded.

The weights and what is trained are counted exactly. What the forward pass keeps for the backward pass
is estimated from what a decoder layer keeps (`_kept_per_token`), the rest from the tensors
that losses.py, clip.py and the optimiser hold at once. Against the peak of a real process (CPU) the total
was between 0.77 and 1.1 of it, for the demo base and a random SmolLM2-135M, LoRA, full, head, last
layers and a soft prompt, with and without privacy; 0.77 with gradient checkpointing, 0.88 or more without
(tests/appliance/test_train_memory.py measures it again). For LoRA on 16 layers of Mistral, Qwen 2 and 3,
Phi-3 and Gemma 2 and 3 it was between 0.9 and 1.06 (test_train_families.py). A GPU's own overhead is not in
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType

from appliance.core.errors import ConfigWrong
from appliance.models.load import read_json
from appliance.models.safetensors import read_headers
from appliance.train.settings import Settings, targets_in

PROGRAM = 450_000_000  # torch, transformers and peft themselves, loaded (CPU)
_LOGITS = 4  # copies: logits, softmax, their gradients
_UPDATE = 40  # bytes a trained number: the sum in int64, noise, float64, float32, AdamW's temporaries
_ENDS = ("lm_head.weight", "output.weight")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A base's sizes. `layer` is the parameters of each decoder layer; `linears` are its matrices, (in, out).

    `attention` is the width of all heads together. `tied`: the output layer is the embedding, counted
    once in `parameters`. `capped`: attention's scores are capped (Gemma 2), which only an implementation
    that keeps them all can do. `file_bytes` is on disk.
    """

    hidden: int
    intermediate: int
    attention: int
    heads: int
    vocabulary: int
    context: int
    tied: bool
    capped: bool
    parameters: int
    layer: tuple[int, ...]
    linears: Mapping[str, tuple[int, int]]
    file_bytes: int

    @property
    def head(self) -> int:
        """Parameters of the output layer's matrix."""
        return self.vocabulary * self.hidden


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a step, all processes together.

    A step is fullest either at the end of the forward pass, with `activations`, `logits` and the
    `gradients` that the backward pass begins to fill, or afterwards, when these are clipped, noised and
    applied (`update`).
    """

    weights: int
    moments: int
    gradients: int
    activations: int
    logits: int
    update: int
    program: int

    @property
    def total(self) -> int:
        """At the fullest moment."""
        passing = max(self.gradients + self.activations + self.logits, self.update)
        return self.weights + self.moments + passing + self.program

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return {**vars(self), "total": self.total}


def read_shape(folder: Path) -> Shape:
    """The shape of a base, from its config.json and the headers of its safetensors files.

    Raises:
        ModelRejected: one of them cannot be read.
    """
    config = read_json(folder / "config.json")
    tensors = {name: part for name, part in read_headers(folder).items() if "inv_freq" not in name}
    tied = bool(config.get("tie_word_embeddings")) or not any(name.endswith(_ENDS) for name in tensors)
    counted = {
        name: prod(part.shape)
        for name, part in tensors.items()
        if not (tied and name.endswith(_ENDS))  # some files hold a tied matrix twice
    }
    count = int(config["num_hidden_layers"])
    layer, linears = [0] * count, {}
    for name, part in tensors.items():
        _, found, after = name.partition(".layers.")
        if not found:
            continue
        layer[int(after.partition(".")[0])] += counted[name]
        if len(part.shape) == 2:
            linears[name.split(".")[-2]] = (part.shape[1], part.shape[0])
    hidden = int(config["hidden_size"])
    return Shape(
        hidden=hidden,
        intermediate=int(config.get("intermediate_size", 4 * hidden)),
        attention=linears.get("o_proj", (hidden, hidden))[0],
        heads=int(config["num_attention_heads"]),
        vocabulary=int(config["vocab_size"]),
        context=int(config.get("max_position_embeddings", 2048)),
        tied=tied,
        capped=config.get("model_type") == "gemma2",
        parameters=sum(counted.values()),
        layer=tuple(layer),
        linears=MappingProxyType(linears),
        file_bytes=sum(part.size for part in tensors.values()),
    )


def trained_parameters(shape: Shape, settings: Settings) -> int:
    """How many numbers the run changes; exact.

    Raises:
        ConfigWrong: the base has no layer of that name, or not that many layers.
    """
    if settings.layers > len(shape.layer):
        raise ConfigWrong(
            f"The base has {len(shape.layer)} layers, not {settings.layers}.",
            f"Use --layers {len(shape.layer)} or less.",
        )
    match settings.method:
        case "last-layers":
            return sum(shape.layer[-(settings.layers or 1) :])
        case "head":
            return shape.head
        case "full":
            return shape.parameters
        case "prompt":
            return settings.prompt_tokens * shape.hidden
    sides = (shape.linears[name] for name in targets_in(shape.linears, settings))
    width = sum(out + (into if settings.trains_a else 0) for into, out in sides)
    return settings.rank * width * (settings.layers or len(shape.layer))


def memory(
    shape: Shape, settings: Settings, *, rows: int, width: int, labelled: int, teacher: int = 0
) -> Memory:
    """What a step needs, of micro-batches of `rows` records padded to `width` tokens.

    `labelled` is the number of positions with logits in one of them, `teacher` the parameters of the
    teacher, which is held in float32. Each of `settings.processes` holds its own.
    """
    trained = trained_parameters(shape, settings)
    frozen = 2 if settings.precision == "bfloat16" else 4
    pairs = 2 if settings.objective == "dpo" else 1
    gradients, update = _gradients(settings, trained, rows * pairs)
    each = Memory(
        weights=shape.parameters * frozen + _new(shape, settings, trained) + teacher * 4,
        moments=8 * trained,
        gradients=gradients,
        activations=_activations(shape, settings, rows * pairs, width),
        logits=4 * _LOGITS * labelled * pairs * shape.vocabulary,
        update=update,
        program=PROGRAM,
    )
    return Memory(**{name: size * settings.processes for name, size in vars(each).items()})


def _new(shape: Shape, settings: Settings, trained: int) -> int:
    """Bytes of weights that the base does not have: adapters, or an output layer of its own."""
    if settings.method in ("last-layers", "full"):
        return 0
    if settings.method == "lora":
        whole = trained if settings.trains_a else trained + _left_a(shape, settings)
        return 4 * whole
    own_head = 4 * shape.head if shape.tied else 0
    return own_head + (4 * trained if settings.method == "prompt" else 0)


def _left_a(shape: Shape, settings: Settings) -> int:
    into = sum(shape.linears[name][0] for name in targets_in(shape.linears, settings))
    return settings.rank * into * (settings.layers or len(shape.layer))


def _gradients(settings: Settings, trained: int, rows: int) -> tuple[int, int]:
    """Bytes at the end of the backward pass, and after it; 4 bytes a number, a row a record where private."""
    flat = 4 * trained
    if not settings.private:
        return flat, 4 * flat
    held = rows * flat
    hooked = held + flat  # Opacus: a layer's rows before they are joined, and the ordinary gradient
    before = held  # the rows of the micro-batch before, until these take their place
    given = before + held if settings.method == "lora" else before + held + hooked
    return given, max(4 * held, held + _UPDATE * trained)


def _activations(shape: Shape, settings: Settings, rows: int, width: int) -> int:
    """What the forward pass keeps: everything a layer computes, or its input alone where checkpointed."""
    size = 2 if settings.precision == "bfloat16" else 4
    layers = len(shape.layer)
    here = _kept_per_token(shape, width) * size * rows * width
    if settings.method == "head":
        layers = 0
    elif settings.method == "last-layers":
        layers = settings.layers or 1
    if settings.checkpointing:
        return layers * shape.hidden * size * rows * width + here
    return max(1, layers) * here


def _kept_per_token(shape: Shape, width: int) -> int:
    """Numbers a decoder layer keeps of one token of a row of `width`: two norms, q, k, v and their turned
    copies, attention's output and sums, four of the MLP's width (gate, its activation, up, their product),
    and where attention is capped four of the scores (raw, capped, masked, softmax)."""
    scores = 4 * shape.heads * width if shape.capped else 0
    return 6 * shape.hidden + 6 * shape.attention + 4 * shape.intermediate + scores
