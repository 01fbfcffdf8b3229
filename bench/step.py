"""A private training step against ordinary peft and Opacus, on random models of real shapes (CPU).

Every kind takes the same batch from forward pass to AdamW step: 8 records of 128 tokens, all of
them trained on, LoRA of rank 8 on q, k, v and o, one thread. `fused, open` is our own engine with
batch gradients: the fair measure of what privacy costs. `third labelled` trains on the last third
of the tokens only, where ours computes no other logits. The demo base stands beside them with the
product's own settings and label loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.table import alternate, row, show

_SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "h256x4": ("llama", {"hidden": 256, "layers": 4, "heads": 4, "kv": 4, "inter": 768, "vocab": 4096}),
    "SmolLM2-135M": (
        "llama",
        {"hidden": 576, "layers": 30, "heads": 9, "kv": 3, "inter": 1536, "vocab": 49152},
    ),
    "Qwen2.5-0.5B": (
        "qwen2",
        {"hidden": 896, "layers": 24, "heads": 14, "kv": 2, "inter": 4864, "vocab": 151936},
    ),
}
_RECORDS, _LENGTH, _ROUNDS = 8, 128, 7
Step = Callable[[], None]


def run(options: Any) -> None:
    """Time the smallest shape and the demo base, or the shapes named in --sets (the big ones take long)."""
    import torch

    torch.set_num_threads(1)
    asked = [name for name in options.sets.split(",") if name in _SHAPES]
    rows = [] if asked else _demo()
    for name in asked or ("h256x4",):
        rows += _shape(name, _LENGTH, "all labelled", with_opacus=True)
        rows += _shape(name, _LENGTH // 3, "third labelled", with_opacus=False)
    show(rows, options.json)


def _shape(name: str, labelled: int, case: str, *, with_opacus: bool) -> list[dict[str, Any]]:
    peers: dict[str, Callable[[str, int], Step]] = {"peft step": _peft, "fused, open": _fused_open}
    if with_opacus:
        peers |= {"Opacus hooks": _hooks, "Opacus ghost": _ghost}
    found = []
    for peer, build in peers.items():
        ours, theirs = alternate(_private(name, labelled), build(name, labelled), _ROUNDS)
        found.append(row("step", f"{name}, {case}", f"private/{peer}", ours, theirs, "CPU s"))
    return found


def _model(name: str) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    family, size = _SHAPES[name]
    config = (Qwen2Config if family == "qwen2" else LlamaConfig)(
        hidden_size=size["hidden"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv"],
        intermediate_size=size["inter"],
        vocab_size=size["vocab"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_config(config),
        LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"),
    )
    return model.train()


def _records(name: str, labelled: int) -> list[Any]:
    import numpy as np

    from appliance.models.encoding import Encoded

    ids = np.random.default_rng(0).integers(5, _SHAPES[name][1]["vocab"], (_RECORDS, _LENGTH + 1)).tolist()
    return [Encoded(prompt=tuple(line[:-labelled]), answer=tuple(line[-labelled:])) for line in ids]


def _private(name: str, labelled: int) -> Step:
    """What the product does: slots, clipping on the lattice, secure noise, Adam."""
    import torch

    from appliance.privacy.noise import LATTICE, Keystream, discrete_gaussian
    from appliance.train.clip import clip_to_lattice
    from appliance.train.losses import full_loss
    from appliance.train.slots import SlotEngine

    model, records = _model(name), _records(name, labelled)
    engine, stream = SlotEngine(model, full_loss, "cpu"), Keystream()
    apply = _adam(engine.parameters)

    def step() -> None:
        gradients, _ = engine.unit_gradients([[record] for record in records])
        total, _ = clip_to_lattice(gradients, 1.0)
        total += discrete_gaussian(len(total), LATTICE, stream)
        apply(torch.from_numpy(total * (1.0 / LATTICE / _RECORDS)).float())

    return step


def _adam(parameters: list[Any]) -> Callable[[Any], None]:
    import torch

    optimiser = torch.optim.AdamW(parameters, lr=1e-4)

    def apply(flat: Any) -> None:
        start = 0
        for part in parameters:
            part.grad = flat[start : start + part.numel()].view(part.shape)
            start += part.numel()
        optimiser.step()
        optimiser.zero_grad()

    return apply


def _fused_open(name: str, labelled: int) -> Step:
    """Our engine without privacy: the same node, gradients summed over the batch."""

    from appliance.train.losses import answer_logits, collate, full_loss
    from appliance.train.slots import Sink, SlotEngine

    class Summed(Sink):
        def add(self, place: slice, thin: Any, wide: Any, *, turned: bool) -> None:
            product = thin.flatten(0, 1).T @ wide.flatten(0, 1)
            self.rows[0, place].view(product.T.shape if turned else product.shape).copy_(
                product.T if turned else product
            )

    class Open(SlotEngine):
        def gradient(self, records: list[Any]) -> Any:
            batch = collate(records, "cpu")
            self._sink = Summed(1, self._size, "cpu")
            full_loss(answer_logits(self._model, batch), batch, records).mean().backward()
            return self._sink.rows[0]

    model, records = _model(name), _records(name, labelled)
    engine = Open(model, full_loss, "cpu")
    apply = _adam(engine.parameters)
    return lambda: apply(engine.gradient(records))


def _peft(name: str, labelled: int) -> Step:
    """An ordinary trainer's step: the model's own loss, every logit."""
    import torch

    model, records = _model(name), _records(name, labelled)
    tokens, targets = _plain_batch(records)
    optimiser = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-4)

    def step() -> None:
        model(input_ids=tokens, labels=targets).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def _plain_batch(records: list[Any]) -> tuple[Any, Any]:
    import torch

    tokens = torch.tensor([record.tokens for record in records])
    targets = tokens.clone()
    for line, record in zip(targets, records, strict=True):
        line[: len(record.prompt)] = -100
    return tokens, targets


def _record_losses(logits: Any, targets: Any) -> Any:
    from torch.nn.functional import cross_entropy

    each = cross_entropy(logits[:, :-1].transpose(1, 2), targets[:, 1:], reduction="none")
    return each.sum(1) / (targets[:, 1:] >= 0).sum(1)


def _hooks(name: str, labelled: int) -> Step:
    """Opacus: per-record gradients by hooks, its optimiser and its own (insecure) noise."""
    import torch
    from opacus.grad_sample.grad_sample_module import GradSampleHooks
    from opacus.optimizers import DPOptimizer

    model, records = _model(name), _records(name, labelled)
    tokens, targets = _plain_batch(records)
    GradSampleHooks(model, batch_first=True, loss_reduction="sum")
    optimiser = _opacus_optimiser(DPOptimizer, model)

    def step() -> None:
        torch.autograd.backward(_record_losses(model(input_ids=tokens).logits, targets).sum())
        optimiser.step()
        optimiser.zero_grad()

    return step


def _opacus_optimiser(kind: Any, model: Any) -> Any:
    import torch

    return kind(
        torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-4),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=_RECORDS,
        loss_reduction="sum",
    )


def _ghost(name: str, labelled: int) -> Step:
    """Opacus: ghost norms, then a second backward pass over the clipped loss."""
    import torch
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
        GradSampleModuleFastGradientClipping,
    )
    from opacus.optimizers import DPOptimizerFastGradientClipping

    model, records = _model(name), _records(name, labelled)
    tokens, targets = _plain_batch(records)
    wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=1.0, use_ghost_clipping=True)
    optimiser = _opacus_optimiser(DPOptimizerFastGradientClipping, model)

    def step() -> None:
        losses = _record_losses(wrapped(input_ids=tokens).logits, targets)
        losses.sum().backward(retain_graph=True)
        optimiser.zero_grad()
        factors = wrapped.get_clipping_coef()
        wrapped.disable_hooks()
        torch.autograd.backward((factors.to(losses.device) * losses).sum())
        wrapped.enable_hooks()
        optimiser.step()
        optimiser.zero_grad()

    return step


def _demo() -> list[dict[str, Any]]:
    """The shipped base as the product trains it, on 32 messages of the made-up inbox."""
    import torch

    from appliance.data import inbox
    from appliance.models.importing import DEMO_BASE
    from appliance.models.load import load_torch
    from appliance.models.task import PROMPT, Task
    from appliance.train import clip, losses
    from appliance.train.adapt import add_lora
    from appliance.train.engine import engine_for
    from appliance.train.job import encoder_for
    from appliance.train.settings import Settings

    messages = [record for record, _ in zip(inbox.generate(0), range(32), strict=False)]
    labels = tuple(sorted({message.answer for message in messages}))

    def fresh() -> tuple[Any, Any]:
        model, tokenizer = load_torch(DEMO_BASE)
        encoder = encoder_for(tokenizer, DEMO_BASE, Task(kind="label", prompt=PROMPT, labels=labels), 512)
        return add_lora(model, Settings()).train(), encoder

    private, encoder = fresh()
    plain, _ = fresh()
    encoded = [encoder.encode(message.text, message.answer) for message in messages]
    loss = losses.label_loss(encoder.trie(), 4096)
    engine = engine_for(private, loss, "cpu")
    batch = losses.collate(encoded, "cpu")
    targets = torch.full_like(batch.tokens, -100)
    for record, line in zip(encoded, targets, strict=True):
        line[-len(record.answer) :] = torch.tensor(record.answer)

    def ours() -> None:
        gradients, _ = engine.unit_gradients([[record] for record in encoded])
        clip.clip_to_lattice(gradients, 1.0)

    def same_loss() -> None:
        loss(losses.answer_logits(plain, batch), batch, encoded).sum().backward()
        plain.zero_grad()

    def peft_step() -> None:
        plain(input_ids=batch.tokens, attention_mask=batch.mask, labels=targets).loss.backward()
        plain.zero_grad()

    found = []
    for peer, theirs in (("same loss, open", same_loss), ("peft step", peft_step)):
        first, second = alternate(ours, theirs)
        found.append(row("step", "demo base, 32 records", f"private/{peer}", first, second, "CPU s"))
    return found
