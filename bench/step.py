"""A private training step against ordinary peft and Opacus, on random models of real shapes.

Every kind takes the same batch from forward pass to AdamW step: records of 128 tokens, LoRA of rank
8 on q, k, v and o, one thread, CPU time. `fused, open` is our own engine with batch gradients: the
fair measure of what privacy costs. `third labelled` trains on the last third of the tokens only,
where ours computes no other logits. Records have a 129th token that is only predicted: ours leaves
it out, the peers' own losses do not. The demo base stands beside them with the product's own
settings and label loss. The large shapes take fewer records unless --records says otherwise; --sets
names shapes.

Llama-1B and Llama-8B are for a GPU, in bfloat16, by wall time with the device synchronised. They
are left out where torch sees none. Noise is drawn on the processor, beside the GPU: with few records in
a step it is what a private step waits for.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from bench.kinds import KINDS
from bench.shapes import LENGTH, SHAPES, Shape, base_model, random_records, twin
from bench.table import against, in_turns, show

_ROUNDS = {"h256x4": 15, "SmolLM2-135M": 3, "Qwen2.5-0.5B": 3, "Llama-1B": 15, "Llama-8B": 7}


def run(options: Any) -> None:
    """Time the demo base and the shapes, or only the shapes named in --sets."""
    import torch

    torch.set_num_threads(1)
    asked = [name for name in options.sets.split(",") if name in SHAPES]
    if not asked:
        show(_demo(options.rounds or 9), options.json)
    for name in asked or _ROUNDS:
        shape = SHAPES[name]
        if shape.big and not torch.cuda.is_available():
            print(f"step: {name} left out, torch sees no GPU", file=sys.stderr)
            continue
        show(_shape(name, shape, options.rounds or _ROUNDS.get(name, 5), options.records), options.json)


def _shape(name: str, shape: Shape, rounds: int, records: int) -> list[dict[str, Any]]:
    import torch

    device = "cuda" if shape.big else "cpu"

    def clock() -> float:
        if device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    base, found = base_model(shape, device), []
    peers = [peer for peer in KINDS if peer != "private"]
    cases = {"all labelled": (LENGTH, peers), "third labelled": (LENGTH // 3, peers[:2])}
    for case, (labelled, others) in cases.items():
        batch = random_records(shape, labelled, records)
        works = {kind: KINDS[kind](twin(base), batch, device) for kind in ("private", *others)}
        taken = in_turns(works, rounds, clock)
        unit = "CPU s" if device == "cpu" else "s"
        found += [
            against("step", f"{name} x{len(batch)}, {case}", taken, "private", peer, unit) for peer in others
        ]
        if device == "cuda":
            torch.cuda.empty_cache()
    return found


def _demo(rounds: int) -> list[dict[str, Any]]:
    """The shipped base as the product trains it, on 32 messages of the made-up inbox."""
    import torch

    from appliance.data import inbox
    from appliance.models.importing import DEMO_BASE
    from appliance.models.load import encoder_for, load_torch
    from appliance.models.task import PROMPT, Task
    from appliance.train import batch as batches
    from appliance.train import clip, losses
    from appliance.train.adapt import adapt
    from appliance.train.engine import engine_for
    from appliance.train.settings import Settings

    messages = [record for record, _ in zip(inbox.generate(0), range(32), strict=False)]
    labels = tuple(sorted({message.answer for message in messages}))

    def fresh() -> tuple[Any, Any]:
        model, tokenizer = load_torch(DEMO_BASE)
        encoder = encoder_for(tokenizer, DEMO_BASE, Task(kind="label", prompt=PROMPT, labels=labels), 512)
        return adapt(model, Settings()), encoder

    private, encoder = fresh()
    plain, _ = fresh()
    encoded = [encoder.encode(message.text, message.answer) for message in messages]
    loss = losses.label_loss(encoder.trie(), 4096)
    engine = engine_for(private, loss, "cpu")
    batch = batches.collate(encoded, "cpu")
    targets = torch.full_like(batch.tokens, -100)
    for record, line in zip(encoded, targets, strict=True):
        line[-len(record.answer) :] = torch.tensor(record.answer)

    def ours() -> None:
        gradients, _ = engine.unit_gradients([[record] for record in encoded])
        clip.clip_to_lattice(gradients, 1.0)

    def same_loss() -> None:
        loss(batches.answer_logits(plain, batch), batch, encoded).sum().backward()
        plain.zero_grad()

    def peft_step() -> None:
        plain(input_ids=batch.tokens, attention_mask=batch.mask, labels=targets).loss.backward()
        plain.zero_grad()

    taken = in_turns({"private": ours, "same loss, open": same_loss, "peft step": peft_step}, rounds)
    return [
        against("step", "demo base x32", taken, "private", peer) for peer in ("same loss, open", "peft step")
    ]
