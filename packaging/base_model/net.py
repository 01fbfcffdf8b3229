"""The network and its optimiser: a small Llama, Muon for the matrices, AdamW for the rest.

Parameters carry the names of transformers' LlamaForCausalLM, so that exporting is copying. Muon
after K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024): momentum,
then the nearest half-orthogonal matrix by a quintic Newton-Schulz iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Parameters = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of the model."""

    vocabulary: int = 4096
    hidden: int = 256
    inner: int = 768
    layers: int = 3
    heads: int = 4
    context: int = 512
    epsilon: float = 1e-5
    theta: float = 10_000.0


def fresh(shape: Shape, embeddings: Tensor, generator: torch.Generator) -> Parameters:
    """New parameters around given embeddings [vocabulary, hidden]."""
    sizes = {
        "self_attn.q_proj": (shape.hidden, shape.hidden),
        "self_attn.k_proj": (shape.hidden, shape.hidden),
        "self_attn.v_proj": (shape.hidden, shape.hidden),
        "self_attn.o_proj": (shape.hidden, shape.hidden),
        "mlp.gate_proj": (shape.inner, shape.hidden),
        "mlp.up_proj": (shape.inner, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.inner),
    }
    parameters = {"model.embed_tokens.weight": embeddings.clone()}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        for name, size in sizes.items():
            last = name in ("self_attn.o_proj", "mlp.down_proj")
            scale = 0.02 / (2 * shape.layers) ** 0.5 if last else 0.02
            parameters[f"{prefix}{name}.weight"] = torch.randn(size, generator=generator) * scale
        for name in ("input_layernorm", "post_attention_layernorm"):
            parameters[f"{prefix}{name}.weight"] = torch.ones(shape.hidden)
    parameters["model.norm.weight"] = torch.ones(shape.hidden)
    return parameters


def rotations(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each [length, head]."""
    head = shape.hidden // shape.heads
    speeds = shape.theta ** (-torch.arange(0, head, 2).float() / head)
    angles = torch.outer(torch.arange(length).float(), speeds)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def states(parameters: Parameters, shape: Shape, tokens: Tensor) -> Tensor:
    """The final hidden states [batch, length, hidden] of tokens [batch, length]."""
    batch, length = tokens.shape
    head = shape.hidden // shape.heads
    cosines, sines = rotations(shape, length)

    def turned(x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        return x * cosines + torch.cat((-right, left), dim=-1) * sines

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.rms_norm(x, (shape.hidden,), parameters[name], shape.epsilon)

    def split(x: Tensor) -> Tensor:
        return x.view(batch, length, shape.heads, head).transpose(1, 2)

    x = functional.embedding(tokens, parameters["model.embed_tokens.weight"])
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."

        def linear(y: Tensor, name: str, prefix: str = prefix) -> Tensor:
            return functional.linear(y, parameters[f"{prefix}{name}.weight"])

        y = norm(x, f"{prefix}input_layernorm.weight")
        mixed = functional.scaled_dot_product_attention(
            turned(split(linear(y, "self_attn.q_proj"))),
            turned(split(linear(y, "self_attn.k_proj"))),
            split(linear(y, "self_attn.v_proj")),
            is_causal=True,
        )
        x = x + linear(mixed.transpose(1, 2).reshape(batch, length, shape.hidden), "self_attn.o_proj")
        y = norm(x, f"{prefix}post_attention_layernorm.weight")
        gate = functional.silu(linear(y, "mlp.gate_proj"))
        x = x + linear(gate * linear(y, "mlp.up_proj"), "mlp.down_proj")
    return norm(x, "model.norm.weight")


def losses(parameters: Parameters, shape: Shape, windows: Tensor, learnt: Tensor) -> Tensor:
    """Cross-entropies [k] of the next tokens of windows [batch, length + 1] where `learnt` is true.

    `learnt` is [batch, length], true where the next token counts; the others are never projected
    on the vocabulary.
    """
    hidden = states(parameters, shape, windows[:, :-1])[learnt]
    logits = functional.linear(hidden, parameters["model.embed_tokens.weight"])
    return functional.cross_entropy(logits, windows[:, 1:][learnt], reduction="none")


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The Newton-Schulz image of a matrix: about its U V^T."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Optimiser:
    """Muon (lr .02, momentum .95, decay .01) and AdamW (lr 3e-3, betas .9/.98, no decay, clip 1)."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.matrices = [name for name, value in parameters.items() if value.dim() == 2 and "proj" in name]
        self.others = [name for name in parameters if name not in self.matrices]
        self.memory = {name: torch.zeros_like(parameters[name]) for name in self.matrices}
        self.first = {name: torch.zeros_like(parameters[name]) for name in self.others}
        self.second = {name: torch.zeros_like(parameters[name]) for name in self.others}

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that a resumed run needs."""
        return {"memory": self.memory, "first": self.first, "second": self.second}

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        """The inverse of `state`."""
        self.memory, self.first, self.second = state["memory"], state["first"], state["second"]

    def step(
        self,
        gradients: Parameters,
        *,
        number: int,
        rate: float,
        rank: int,
        world: int,
        add: Callable[[Tensor], None],
    ) -> None:
        """Change the parameters in place; `number` counts from 1, `rate` scales both learning rates.

        Of `world` processes each makes its share of the matrices orthogonal; `add` sums a tensor
        over them in place.
        """
        self._muon(gradients, rate=rate, rank=rank, world=world, add=add)
        norm = torch.stack([gradients[name].square().sum() for name in self.others]).sum().sqrt()
        clip = min(1.0, 1.0 / (float(norm) + 1e-6))
        for name in self.others:
            gradient = gradients[name] * clip
            first = self.first[name].lerp_(gradient, 0.1)
            second = self.second[name].lerp_(gradient.square(), 0.02)
            mean = first / (1 - 0.9**number)
            root = (second / (1 - 0.98**number)).sqrt() + 1e-8
            self.parameters[name].sub_(mean / root, alpha=3e-3 * rate)

    def _muon(
        self, gradients: Parameters, *, rate: float, rank: int, world: int, add: Callable[[Tensor], None]
    ) -> None:
        sizes = [self.memory[name].numel() for name in self.matrices]
        updates = torch.zeros(sum(sizes))
        for index, (name, piece) in enumerate(zip(self.matrices, updates.split(sizes), strict=True)):
            memory = self.memory[name].mul_(0.95).add_(gradients[name])
            if index % world == rank:
                piece.copy_(orthogonal(gradients[name] + 0.95 * memory).flatten())
        add(updates)
        for name, piece in zip(self.matrices, updates.split(sizes), strict=True):
            value = self.parameters[name]
            scale = max(1.0, value.shape[0] / value.shape[1]) ** 0.5
            value.mul_(1 - 0.02 * rate * 0.01).sub_(piece.view_as(value), alpha=0.02 * rate * scale)
