"""Whatever the bytes: a header reader gives a sound result or refuses."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from fuzz_changes import NUMBERS
from fuzz_support import string
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.core.errors import ModelRejected
from appliance.models.safetensors import Tensor, read_header
from quantize.header import Gguf, read_gguf

ONE = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (f'{{"a":{ONE},"a":{ONE}}}', "named twice"),
        ('{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "named twice"),
        (f' {{"a":{ONE}}}', "no JSON object"),
        ("[]", "no JSON object"),
        (f'{{"a\udcff":{ONE}}}', "utf-8"),
        (f'{{"":{ONE}}}', "the name"),
        (f'{{"a\\u0000":{ONE}}}', "the name"),
        (f'{{"{"a" * 2000}":{ONE}}}', "the name"),
        (f'{{"__metadata__":{{"a":1}},"a":{ONE}}}', "__metadata__"),
        (f'{{"__metadata__":null,"a":{ONE}}}', "__metadata__"),
        ('{"a":null}', "bad entry"),
        ('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}}', "bad entry"),
        ('{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', "the number 2.0"),
        ('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', "the number NaN"),
        ('{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', "the number -2"),
        ('{"a":{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}}', "bad numbers"),
        ('{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]}}', "the number"),
        ('{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}}' % ("9" * 9000), "the number"),
        (
            '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}',
            "does not match its shape",
        ),
        ('{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}}', "type F32 or shape"),
        ('{"a":{"dtype":"F8","shape":[8],"data_offsets":[0,8]}}', "type F8"),
        ('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}', "or shape"),
        ('{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}', "does not match"),
        (f'{{"a":{ONE},"b":{ONE}}}', "overlap"),
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', "a hole"),
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "bytes against"),
        ("[" * 100_000, "no JSON object"),
        ('{"a":' * 100_000, "recursion"),
    ],
)
def test_an_odd_safetensors_header_is_refused(tmp_path: Path, header: str, said: str) -> None:
    body = header.encode("utf-8", "surrogateescape")
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", len(body)) + body + bytes(8))
    with pytest.raises(ModelRejected, match=said):
        read_header(file)


def test_a_sound_safetensors_header_is_read(tmp_path: Path) -> None:
    empty = '{"dtype":"F32","shape":[0],"data_offsets":[8,8]}'
    body = f'{{"__metadata__":{{"format":"pt"}},"a":{ONE},"z":{empty}}}  '
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", len(body)) + body.encode() + bytes(8))
    held = read_header(file)
    assert [(part.shape, part.start, part.size) for part in held.values()] == [
        ((2,), 8 + len(body), 8),
        ((0,), 16 + len(body), 0),
    ]


JUNK = st.binary(max_size=400)
NUMBER = st.one_of(st.integers(0, 12), st.sampled_from(NUMBERS))


@st.composite
def gguf_like(draw: st.DrawFn) -> bytes:
    """Bytes that begin as a GGUF does and go on less and less like one."""
    head = struct.pack("<4sIQQ", b"GGUF", draw(st.sampled_from([3, 3, 3, 2])), draw(NUMBER), draw(NUMBER))
    for _ in range(draw(st.integers(0, 4))):
        key = draw(st.sampled_from([b"general.architecture", b"tokenizer.ggml.tokens", b"a", b""]))
        kind = draw(st.integers(0, 13))
        head += string(key) + struct.pack("<I", kind)
        head += struct.pack("<IQ", draw(st.integers(0, 13)), draw(NUMBER)) if kind == 9 else b""
        head += draw(st.one_of(JUNK, st.just(string(b"llama"))))
    return head + draw(JUNK)


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(JUNK, gguf_like()))
def test_any_bytes_are_a_sound_gguf_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    try:
        assert isinstance(read_gguf(tmp_path / "x.gguf"), Gguf)
    except ModelRejected as problem:
        assert problem.hint


JSONS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), NUMBER, st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.one_of(st.sampled_from(["F32", "U8"]), JSONS),
        "shape": st.one_of(st.lists(NUMBER, max_size=3), JSONS),
        "data_offsets": st.one_of(st.lists(NUMBER, min_size=2, max_size=2), JSONS),
    }
)


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.one_of(JSONS, st.dictionaries(st.text(max_size=9), ENTRY, max_size=3)), junk=JUNK)
def test_any_bytes_are_a_sound_safetensors_or_refused(tmp_path: Path, header: Any, junk: bytes) -> None:
    body = json.dumps(header).encode()
    for content in (junk, struct.pack("<Q", len(body)) + body + junk):
        (tmp_path / "x.safetensors").write_bytes(content)
        try:
            held = read_header(tmp_path / "x.safetensors")
        except ModelRejected as problem:
            assert problem.hint
        else:
            assert all(isinstance(part, Tensor) for part in held.values())
            assert sum(part.size for part in held.values()) < len(content)
