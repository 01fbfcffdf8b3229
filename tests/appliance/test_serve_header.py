"""What the gateway reads of a model file: special texts, and little memory for large vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFWriter

from appliance.core.errors import ModelRejected
from appliance.serve.embedding import read_form
from appliance.serve.header import read_header

TOKENS = ["<unk>", "<s>", "</s>", "<tool>", "word", "[INST]", "[PAD6]", "[PAD7]"]
KINDS = [2, 3, 3, 4, 1, 1, 5, 1]


def written(path: Path) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_token_list(TOKENS)
    writer.add_token_types(KINDS)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_special_is_what_llama_cpp_may_parse_as_one(tmp_path: Path) -> None:
    header = read_header(written(tmp_path / "a.gguf"))
    # Rows that no token has are not special; an ordinary token of that name might be.
    assert header.specials == ("<tool>", "[INST]", "[PAD7]", "<unk>", "</s>", "<s>")
    assert header.forced == header.defined == {"<tool>"}
    assert (header.bos_text, header.eos_text, header.context) == ("<s>", "</s>", 64)


def test_a_damaged_header_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.gguf").read_bytes()
    for length in range(0, len(whole) - 8):
        (tmp_path / "b.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelRejected):
            read_header(tmp_path / "b.gguf")


@pytest.mark.parametrize("key", ["context_length", "embedding_length", "pooling_type"])
def test_a_number_without_end_is_refused(tmp_path: Path, key: str) -> None:
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    numbers = {"context_length": 64, "embedding_length": 8, "pooling_type": 1} | {key: float("inf")}
    for name, number in numbers.items():
        (writer.add_float32 if name == key else writer.add_uint32)(f"llama.{name}", number)
    writer.add_token_list(TOKENS)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelRejected):
        read_form(tmp_path / "a.gguf")
    if key == "context_length":
        with pytest.raises(ModelRejected):
            read_header(tmp_path / "a.gguf")


def test_a_length_beyond_all_numbers_is_refused(tmp_path: Path) -> None:
    whole = bytearray(written(tmp_path / "a.gguf").read_bytes())
    whole[24:32] = b"\xff" * 8  # of the first key
    (tmp_path / "a.gguf").write_bytes(whole)
    with pytest.raises(ModelRejected):
        read_header(tmp_path / "a.gguf")
