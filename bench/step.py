"""A private training step against an ordinary peft step on the same records (shipped base, CPU)."""

from __future__ import annotations

from typing import Any

from bench.table import alternate, row, show


def run(options: Any) -> None:
    """Time gradient computation for 32 records of about 30 tokens, one thread."""
    import torch

    from appliance.data import inbox
    from appliance.models.importing import DEMO_BASE
    from appliance.models.load import load_torch
    from appliance.models.task import PROMPT, Task
    from appliance.train import clip, losses
    from appliance.train.adapt import add_lora
    from appliance.train.job import encoder_for
    from appliance.train.settings import Settings

    torch.set_num_threads(1)
    records = [record for record, _ in zip(inbox.generate(0), range(32), strict=False)]
    labels = tuple(sorted({record.answer for record in records}))

    def fresh() -> tuple[Any, Any]:
        model, tokenizer = load_torch(DEMO_BASE)
        encoder = encoder_for(tokenizer, DEMO_BASE, Task(kind="label", prompt=PROMPT, labels=labels), 512)
        return add_lora(model, Settings()).train(), encoder

    private, encoder = fresh()
    plain, _ = fresh()
    encoded = [encoder.encode(record.text, record.answer) for record in records]
    loss = losses.label_loss(encoder.trie(), 4096)
    engine = clip.HookEngine(private, loss, "cpu")
    batch = losses.collate(encoded, "cpu")

    def ours() -> None:
        gradients, _ = engine.unit_gradients([[record] for record in encoded])
        clip.clip_to_lattice(gradients, 1.0)

    def same_loss() -> None:
        loss(losses.answer_logits(plain, batch), batch, encoded).sum().backward()
        plain.zero_grad()

    targets = torch.full_like(batch.tokens, -100)
    for record, row_of in zip(encoded, targets, strict=True):
        row_of[-len(record.answer) :] = torch.tensor(record.answer)

    def peft_step() -> None:
        """What a trainer does by default: the whole vocabulary at every position."""
        plain(input_ids=batch.tokens, attention_mask=batch.mask, labels=targets).loss.backward()
        plain.zero_grad()

    first, second = alternate(ours, same_loss)
    third, fourth = alternate(ours, peft_step)
    show(
        [
            row("step", "demo base, 32 records", "private/same loss, open", first, second, "CPU s"),
            row("step", "demo base, 32 records", "private/peft step", third, fourth, "CPU s"),
        ],
        options.json,
    )
