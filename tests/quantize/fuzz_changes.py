"""What is changed in a file's header, by chance: a value, a type, a length, a name, a bit."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from copy import deepcopy

from fuzz_support import FORMS, WIDTHS, Parts, put_together, string

NUMBERS = [0, 1, 2, 3, 5, 7, 31, 63, 64, 65, 127, 255, 256, 511, 512, 513, 1025, 65535, 1 << 20]
NUMBERS += [(1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan")]


def words(text: str) -> list[str]:
    return text.split()


OTHER_KEYS = words(
    """split.count general.alignment general.type ARCH.expert_count ARCH.expert_used_count
    ARCH.expert_group_count ARCH.attention.causal ARCH.pooling_type ARCH.rope.scaling.type
    ARCH.rope.scaling.factor ARCH.attention.sliding_window ARCH.attention.sliding_window_pattern
    ARCH.final_logit_softcapping ARCH.attn_logit_softcapping ARCH.nextn_predict_layers
    ARCH.attention.key_length_swa ARCH.rope.dimension_count_swa ARCH.attention.max_alibi_bias
    ARCH.attention.clamp_kqv ARCH.logit_scale ARCH.embedding_scale ARCH.residual_scale
    ARCH.attention.scale ARCH.rope.dimension_sections ARCH.embedding_length_out ARCH.vocab_size
    ARCH.rope.scaling.original_context_length ARCH.classifier.output_labels
    ARCH.rope.scaling.yarn_log_multiplier ARCH.attention.layer_norm_epsilon
    ARCH.leading_dense_block_count ARCH.attention.shared_kv_layers ARCH.attention.temperature_length
    tokenizer.ggml.add_eos_token tokenizer.ggml.add_sep_token tokenizer.ggml.eot_token_id
    tokenizer.ggml.unknown_token_id tokenizer.ggml.fim_pre_token_id tokenizer.ggml.suppress_tokens
    tokenizer.ggml.token_type_count tokenizer.ggml.add_space_prefix tokenizer.ggml.precompiled_charsmap
    tokenizer.ggml.remove_extra_whitespaces general.tensor_extra.name general.tensor_extra.prec_a4
    adapter.alora.invocation_tokens cloister.normalizer tokenizer.ggml.normalizer.lowercase
    tokenizer.ggml.bos_token_id tokenizer.ggml.seperator_token_id tokenizer.ggml.cls_token_id
    tokenizer.ggml.normalizer.strip_accents ARCH.attention.head_count_kv ARCH.attention.key_length
    ARCH.attention.value_length"""
)
OTHER_TEXTS = words(
    """llama qwen2 qwen3 gemma gemma2 gemma3 gemma3n phi2 phi3 mistral bert nomic-bert t5 mamba rwkv6 gpt2
    falcon none linear yarn longrope whitespace gemma4 gpt-2 llama-bpe qwen2 kimi-k2 plamo2 no_vocab
    phi-3 adapter mmproj lora NFC"""
)
TEMPLATES = [
    "{{ 'a' * 10**10 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}a{% endfor %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{{ ''.__class__.__mro__ }}",
    "{% include 'x' %}",
    "{{ '%9999999999d' % 1 }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ messages",
    "(" * 5000,
    "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
]
TENSOR_NAMES = [
    b"output.weight",
    b"blk.0.attn_q.bias",
    b"blk.99.attn_q.weight",
    b"x",
    b"",
    b"rope_freqs.weight",
]
TENSOR_NAMES += [b"token_types.weight", b"position_embd.weight", b"token_embd_norm.bias", b"cls.weight"]
TENSOR_NAMES += [b"a" * 80, b"blk.0.attn_q.weight\0x", b"blk.0.ffn_gate.scale", b"blk.-1.ffn_up.weight"]


def a_value(chance: random.Random, kind: int) -> bytes:
    if kind == 8:
        text = chance.choice([*OTHER_TEXTS, *TEMPLATES, "", "\0", "x" * 300]).encode()
        return string(chance.choice([text, chance.randbytes(8)]))
    if kind == 9:
        inner = chance.choice([0, 4, 5, 6, 8, 9, 12])
        items = chance.choice([0, 1, 2, 4, 300])
        body = b"".join(a_value(chance, inner) for _ in range(items)) if inner != 9 else b""
        return struct.pack("<IQ", inner, items) + body
    if kind in (6, 12):
        return struct.pack(FORMS[kind], chance.choice([*FLOATS, chance.uniform(-9, 9)]))
    if kind not in WIDTHS:
        return b""
    number = chance.choice([*NUMBERS, chance.randrange(1 << 16)])
    return (number & ((1 << 64) - 1)).to_bytes(8, "little")[: WIDTHS[kind]]


def change_value(parts: Parts, chance: random.Random) -> None:
    at = chance.randrange(len(parts.pairs))
    key, kind, _ = parts.pairs[at]
    if kind != 9:
        parts.pairs[at] = (key, kind, a_value(chance, kind))
    else:
        change_items(parts, chance, at)


def change_items(parts: Parts, chance: random.Random, at: int) -> None:
    key, kind, value = parts.pairs[at]
    inner, count = struct.unpack_from("<IQ", value)
    if inner == 9:
        return
    if inner == 8:
        items, place = [], 12
        for _ in range(count):
            (length,) = struct.unpack_from("<Q", value, place)
            items.append(value[place : place + 8 + length])
            place += 8 + length
    else:
        items = [value[12 + n * WIDTHS[inner] :][: WIDTHS[inner]] for n in range(count)]
    what = chance.randrange(6)
    if items and what == 0:
        items.pop(chance.randrange(len(items)))
    elif items and what == 1:
        items[chance.randrange(len(items))] = chance.choice(items)
    elif what == 2:
        items.append(a_value(chance, inner))
    elif what == 3:
        inner = chance.choice([0, 2, 4, 5, 6, 10, 12]) if inner != 8 else inner
        items = [a_value(chance, inner) for _ in items]
    elif what == 4:
        del items[chance.randrange(len(items) + 1) :]
    elif items:
        for _ in range(chance.choice([1, 1, 5])):
            items[chance.randrange(len(items))] = a_value(chance, inner)
    parts.pairs[at] = (key, kind, struct.pack("<IQ", inner, len(items)) + b"".join(items))


def change_kind(parts: Parts, chance: random.Random) -> None:
    at = chance.randrange(len(parts.pairs))
    kind = chance.choice([*range(13), 77])
    parts.pairs[at] = (parts.pairs[at][0], kind, a_value(chance, kind))


def change_pairs(parts: Parts, chance: random.Random) -> None:
    at = chance.randrange(len(parts.pairs))
    if chance.random() < 0.4:
        del parts.pairs[at]
    elif chance.random() < 0.3:
        parts.pairs.append(parts.pairs[at])
    else:
        key = parts.pairs[at][0] + chance.choice([b"", b"x", b"\0", b"\xff"])
        parts.pairs[at] = (key[chance.randrange(2) :], *parts.pairs[at][1:])
        chance.shuffle(parts.pairs)


def add_key(parts: Parts, chance: random.Random) -> None:
    arch = next((value[8:] for key, _, value in parts.pairs if key == b"general.architecture"), b"llama")
    key = chance.choice(OTHER_KEYS).encode().replace(b"ARCH", arch)
    parts.pairs = [pair for pair in parts.pairs if pair[0] != key]
    kind = chance.choice([4, 4, 4, 6, 6, 7, 8, 9, 5, 10])
    parts.pairs.append((key, kind, a_value(chance, kind)))


def rename_architecture(parts: Parts, chance: random.Random) -> None:
    """The same file as one of another architecture, all its keys with it."""
    old = next((value[8:] for key, _, value in parts.pairs if key == b"general.architecture"), b"llama")
    new = chance.choice(OTHER_TEXTS[:17]).encode()
    parts.pairs = [
        (key.replace(old + b".", new + b".", 1) if key.startswith(old + b".") else key, kind, value)
        for key, kind, value in parts.pairs
    ]
    parts.pairs = [
        (key, kind, string(new)) if key == b"general.architecture" else (key, kind, value)
        for key, kind, value in parts.pairs
    ]


def change_tensor(parts: Parts, chance: random.Random) -> None:
    at = chance.randrange(len(parts.tensors))
    name, dims, kind, data = parts.tensors[at]
    what = chance.randrange(8)
    if what == 0:
        del parts.tensors[at]
        return
    if what == 1:
        name = chance.choice([*TENSOR_NAMES, parts.tensors[0][0], name + b"x"])
    elif what == 2:
        dims = dims[::-1]
    elif what == 3:
        dims = [chance.choice([*NUMBERS, *dims]) for _ in range(chance.choice([0, 1, 2, 2, 3, 4, 5]))]
    elif what == 4:
        kind = chance.choice([*range(42), 99])
    elif what == 5:
        kind, data = chance.choice([(1, data[: len(data) // 2]), (30, data[: len(data) // 2]), (26, data)])
    elif what == 6:
        data = chance.randbytes(len(data))
    else:
        half = max(1, dims[-1] // 2)
        data = data[: len(data) * half // dims[-1]]
        dims = [*dims[:-1], half]
    parts.tensors[at] = (name, dims, kind, data)


def change_raw(content: bytes, chance: random.Random, header: int) -> bytes:
    """Bytes of the header flipped, cut, swapped, doubled or set to a number at the edge."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(min(header, len(changed) - 16))
        what = chance.randrange(7)
        if what == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            changed[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif what == 2:
            changed[at : at + 8] = chance.choice(NUMBERS).to_bytes(8, "little")
        elif what == 3:
            changed[at : at + 4] = (chance.choice(NUMBERS) & 0xFFFFFFFF).to_bytes(4, "little")
        elif what == 4:
            other = chance.randrange(min(header, len(changed) - 16))
            changed[at : at + 8], changed[other : other + 8] = (
                changed[other : other + 8],
                changed[at : at + 8],
            )
        elif what == 5:
            del changed[at : at + chance.choice([1, 4, 8])]
        else:
            changed[at:at] = changed[at : at + chance.choice([1, 4, 8])]
        if len(changed) < 64:
            break
    if chance.random() < 0.1:
        del changed[chance.randrange(len(changed)) :]
    return bytes(changed)


CHANGES: list[Callable[[Parts, random.Random], None]] = [
    change_value,
    change_value,
    change_value,
    change_kind,
    change_pairs,
    add_key,
    add_key,
    rename_architecture,
    change_tensor,
    change_tensor,
]


def changed_gguf(content: bytes, parts: Parts, chance: random.Random) -> bytes:
    """`content`, of which `parts` are the parts, with one to three things changed."""
    if chance.random() < 0.3:
        return change_raw(
            content, chance, len(put_together(Parts(parts.pairs, []))) + 40 * len(parts.tensors)
        )
    made = Parts(list(parts.pairs), deepcopy(parts.tensors))
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        if made.pairs and made.tensors:
            chance.choice(CHANGES)(made, chance)
    return put_together(made)


def changed_safetensors(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file with one to three things of its header changed."""
    (length,) = struct.unpack_from("<Q", content)
    if chance.random() < 0.3:
        return change_raw(content, chance, 8 + length)
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    pairs = list(header.items())
    for _ in range(chance.choice([1, 1, 2, 3])):
        at = chance.randrange(len(pairs))
        name, entry = pairs[at]
        entry = deepcopy(entry)
        what = chance.randrange(8)
        odd = chance.choice([*NUMBERS, -1, 1.5, 1e300, None, "4", True, [], {}, float("nan")])
        if what == 0:
            pairs.append((chance.choice(pairs)[0], entry))
        elif what == 1:
            del pairs[at]
        elif what == 2:
            name = chance.choice(["__metadata__", "", "\0", "x" * 2000, name])
        elif what == 3:
            entry["dtype"] = chance.choice(["F16", "I64", "F8_E5M2", "", None, 7, "F32"])
        elif what == 4 and entry.get("shape"):
            entry["shape"][chance.randrange(len(entry["shape"]))] = odd
        elif what == 5 and "data_offsets" in entry:
            entry["data_offsets"][chance.randrange(len(entry["data_offsets"]))] = odd
        elif what == 6:
            entry = chance.choice([odd, {**entry, "more": 1}, {"dtype": "F32"}])
        else:
            entry = {**entry, "shape": [*(entry.get("shape") or []), chance.choice([1, 0, odd])]}
        if what not in (0, 1):
            pairs[at] = (name, entry)
        if not pairs or not all(isinstance(entry, dict) for _, entry in pairs):
            break
    body = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(entry)}" for name, entry in pairs) + "}"
    return struct.pack("<Q", len(body)) + body.encode() + data
