"""Types, ladder, overrides, importance matrix and plan."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from quantize_support import make_model

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, EngineFailed, NotFound
from appliance.core.files import sha256_folder
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.data.records import Record
from appliance.models import registry
from appliance.models.llama import LlamaFile
from appliance.models.registry import Model
from appliance.security import audit
from quantize import calibration, imatrix, worker
from quantize.calibration import CHATS, TEXTS, declared, shipped
from quantize.convert import convert
from quantize.header import read_gguf
from quantize.imatrix import Collector, collect, ggml, load_matrix, run_chunk
from quantize.job import run
from quantize.kernel import plan_types, quantize_file
from quantize.limits import LOSS
from quantize.plan_files import plan_files, read_bytes
from quantize.recipe import QUANTISED, Recipe, ladder, read_tensor_types, recipe_from
from quantize.serving import CONTEXT, SLOTS, memory
from quantize.source import open_checkpoint
from quantize.texts import MESSAGES, PASSAGES
from quantize.verify import same_words

SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("kinds") / "base", **SHAPE)


@pytest.fixture(scope="module")
def f16(base: Path) -> Path:
    file = base.parent / "f16.gguf"
    convert(open_checkpoint(base), file, "F16", name="kinds")
    return file


@pytest.fixture(scope="module")
def matrix(f16: Path) -> Path:
    file = f16.parent / "imatrix.gguf"
    shelf = shipped()
    seen = collect(str(f16), str(file), shelf.texts[:6], shelf.chats[:4], shelf.name, 10**6)
    assert seen["tokens"] > 256 and seen["matrices"] == 14
    return file


@pytest.fixture
def quantised(f16: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(kind: str, **how: Any) -> Path:
        file = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}.gguf"
        quantize_file(str(f16), str(file), kind, **how)
        return file

    return make


# --- ladder and recipes


def test_the_ladder_goes_up_by_matrix_then_by_type() -> None:
    labels = [recipe.label for recipe in ladder(Recipe(kind="Q4_0"))]
    assert labels == ["Q4_0", "Q4_K_M", "Q4_K_M + imatrix", "Q5_K_M", "Q6_K", "Q8_0"]
    labels = [recipe.label for recipe in ladder(Recipe(kind="IQ4_XS"))]
    assert labels[:4] == ["IQ4_XS", "IQ4_XS + imatrix", "Q4_K_M", "Q4_K_M + imatrix"]
    assert "Q4_0" not in labels
    labels = [recipe.label for recipe in ladder(Recipe(kind="Q4_0", matrix=True))]
    assert labels == ["Q4_0 + imatrix", "Q4_K_M + imatrix", "Q5_K_M + imatrix", "Q6_K + imatrix", "Q8_0"]
    assert [recipe.kind for recipe in ladder(Recipe(kind="Q8_0"))] == ["Q8_0"]
    assert set(LOSS) == set(QUANTISED)


def test_one_name_never_stands_for_two_contents() -> None:
    spec = {"tensor_types": read_tensor_types(["ffn_down=q6_k"])}
    recipes = [
        recipe_from("Q4_0", {}),
        recipe_from("Q4_0", {"imatrix": True}),
        recipe_from("Q4_0", spec),
        recipe_from("Q4_0", {"output_type": "Q6_K"}),
        recipe_from("Q4_0", {"embedding_type": "Q6_K"}),
        recipe_from("Q4_0", {}, "0" * 64),
        recipe_from("Q4_0", {}, "1" * 64),
    ]
    assert len({recipe.suffix for recipe in recipes}) == len(recipes)
    assert recipes[0].suffix == "q4_0"
    assert recipe_from("Q8_0", {"imatrix": True}, "0" * 64).suffix == "q8_0"  # which takes no matrix


@pytest.mark.parametrize("text", ["ffn_down", "=Q6_K", "ffn_down=Q9_9"])
def test_a_wrong_tensor_type_is_refused(text: str) -> None:
    with pytest.raises(ConfigWrong):
        read_tensor_types([text])


# --- quantising


@pytest.mark.parametrize("kind", sorted(QUANTISED))
def test_every_type_is_made_and_computes(kind: str, quantised: Callable[..., Path], f16: Path) -> None:
    file = quantised(kind)
    header = read_gguf(file)
    assert header.values["general.file_type"] == QUANTISED[kind]
    assert same_words(header, read_gguf(f16))
    assert {name: kind for name, (kind, _) in header.tensors.items()} == plan_types(str(f16), kind)
    with LlamaFile(file, context=64) as llama:
        assert np.isfinite(llama.logits([[1, 20, 30]])[0]).all()


def test_overrides_show_in_the_histogram(quantised: Callable[..., Path]) -> None:
    file = quantised("Q4_K_M", tensor_types=[["ffn_down", "Q8_0"]], output_type="Q5_K", embedding_type="Q4_1")
    header = read_gguf(file)
    assert header.histogram == {"Q4_K": 11, "Q8_0": 2, "Q6_K": 1, "Q4_1": 1, "Q5_K": 1}
    assert header.tensors["output.weight"][0] == "Q5_K"
    assert header.tensors["token_embd.weight"][0] == "Q4_1"


def test_the_reason_stands_in_the_error(f16: Path, quantised: Callable[..., Path], tmp_path: Path) -> None:
    small = quantised("Q4_0")
    with pytest.raises(EngineFailed, match=r"to Q8_0: requantizing from type q6_K is disabled$"):
        worker.run(
            quantize_file,
            doing="Quantising",
            writes=[tmp_path],
            source=str(small),
            target=str(tmp_path / "x"),
            kind="Q8_0",
        )
    with pytest.raises(EngineFailed, match="could not be quantised to Q4_0"):
        quantize_file(str(f16), str(tmp_path / "x"), "Q4_0", tensor_types=[["(?<=ffn)_down", "Q8_0"]])


# --- importance matrix


def test_the_sums_are_those_of_numpy(f16: Path, base: Path) -> None:
    """The input of the first layer's q, k and v: the embedding, normalised."""
    collector = Collector()
    chunk = [1, *range(20, 100)]
    with LlamaFile(f16, context=128, watch=collector.watch) as llama:
        run_chunk(llama, chunk, collector)
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(f16).tensors}
    x = tensors["token_embd.weight"][chunk].astype(np.float64)
    x /= np.sqrt((x**2).mean(1, keepdims=True) + 1e-6)
    wanted = ((x * tensors["blk.0.attn_norm.weight"]) ** 2).sum(0)
    assert len(collector.sums) == 14
    for name in ("attn_q", "attn_k", "attn_v"):
        assert np.allclose(collector.sums[f"blk.0.{name}.weight"], wanted, rtol=1e-5)
    assert set(collector.counts.values()) == {len(chunk)}  # the last layer too sees every position
    assert collector.sums["blk.1.ffn_down.weight"].shape == (512,)


def test_logits_are_the_same_with_and_without_the_callback(f16: Path) -> None:
    ids = [list(range(10, 90))]
    collector = Collector()
    with LlamaFile(f16, context=128) as plain, LlamaFile(f16, context=128, watch=collector.watch) as watched:
        a, b = plain.logits(ids, [80])[0], watched.logits(ids, [80])[0]
    assert collector.sums
    assert np.array_equal(a, b)


def test_what_fails_in_the_callback_is_raised(f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()

    def fail(node: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(collector, "_add", fail)
    with (
        LlamaFile(f16, context=64, watch=collector.watch) as llama,
        pytest.raises(ValueError, match="planted"),
    ):
        run_chunk(llama, list(range(10, 40)), collector)


def test_another_struct_is_noticed_before_use(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(ctypes.Structure):
        _fields_ = (("first", ctypes.c_int64), *imatrix._Tensor._fields_)

    monkeypatch.setattr(imatrix, "_Tensor", Other)
    ggml.cache_clear()
    with pytest.raises(EngineFailed, match="cannot be collected with this version"):
        ggml()
    monkeypatch.undo()
    ggml.cache_clear()
    assert ggml()[1] > 0


def test_the_file_has_llama_cpps_layout(matrix: Path) -> None:
    reader = GGUFReader(matrix)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert tensors["blk.0.ffn_down.weight.in_sum2"].shape.tolist() == [512, 1]
    assert tensors["blk.0.ffn_down.weight.counts"].shape.tolist() == [1, 1]
    assert reader.get_field("general.type").contents() == "imatrix"  # type: ignore[union-attr]
    assert {key for key in reader.fields if key.startswith("imatrix.")} == {
        "imatrix.datasets",
        "imatrix.chunk_count",
        "imatrix.chunk_size",
    }
    assert "general.architecture" not in reader.fields
    loaded = load_matrix(matrix)
    count = float(tensors["blk.0.ffn_down.weight.counts"].data[0, 0])
    sums = tensors["blk.0.ffn_down.weight.in_sum2"].data[0]
    assert np.allclose(loaded.means["blk.0.ffn_down.weight"], sums / count)


def test_a_matrix_changes_the_file_and_is_told_in_it(
    quantised: Callable[..., Path], matrix: Path, f16: Path
) -> None:
    plain, weighed = quantised("IQ4_XS"), quantised("IQ4_XS", matrix=str(matrix))
    a, b = read_gguf(plain), read_gguf(weighed)
    assert b.values["quantize.imatrix.dataset"] == shipped().name
    assert b.values["quantize.imatrix.entries_count"] == 14
    assert same_words(b, read_gguf(f16)) and same_words(a, b)
    assert {name: kind for name, (kind, _) in b.tensors.items()} == plan_types(
        str(f16), "IQ4_XS", matrix=True
    )
    data = [{t.name: t.data for t in GGUFReader(file).tensors} for file in (plain, weighed)]
    assert not np.array_equal(*(part["blk.0.attn_q.weight"] for part in data))
    with LlamaFile(weighed, context=64) as llama:
        assert np.isfinite(llama.logits([[1, 20, 30]])[0]).all()


def test_a_matrix_brings_its_own_texts_closer(
    f16: Path, quantised: Callable[..., Path], matrix: Path
) -> None:
    """On what it was collected on, the weighed error of the rounding must fall."""
    wanted = next(t.data for t in GGUFReader(f16).tensors if t.name == "blk.0.ffn_gate.weight")
    weights = load_matrix(matrix).means["blk.0.ffn_gate.weight"]
    errors = []
    from gguf import quants

    for how in ({}, {"matrix": str(matrix)}):
        tensor = next(
            t for t in GGUFReader(quantised("Q4_0", **how)).tensors if t.name == "blk.0.ffn_gate.weight"
        )
        got = quants.dequantize(tensor.data, tensor.tensor_type)
        errors.append(float((weights * (got - wanted.astype(np.float32)) ** 2).sum()))
    assert errors[1] < errors[0]


def test_calibration_texts_are_no_proof_texts() -> None:
    proof = {*MESSAGES, *PASSAGES}
    assert not proof & {*TEXTS, *(part for chat in CHATS for part in chat)}


def test_a_calibration_file_must_not_come_from_the_site(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    (home.path / "notes.txt").write_text("a")
    with pytest.raises(ConfigWrong, match="the site's own folder"):
        declared(home, home.path / "notes.txt")
    with pytest.raises(NotFound):
        declared(home, tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigWrong, match="no UTF-8"):
        declared(home, tmp_path / "bytes.txt")


def test_a_calibration_file_with_a_record_in_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = open_home(tmp_path / "home")
    line = "Since Monday my left knee hurts, and the stairs are worst."
    dataset = SimpleNamespace(title="inbox@1")
    monkeypatch.setattr(calibration.store, "datasets", lambda home: [dataset])
    monkeypatch.setattr(
        calibration.store, "read", lambda data, split: [Record(id="1", text=f"{line}\nThank you.", answer="")]
    )
    for content in (f"A text.\n{line}\nMore.", f'id,message\n7,"{line}"\n'):
        (tmp_path / "file.csv").write_text(content)
        with pytest.raises(ConfigWrong, match="holds records of inbox@1"):
            declared(home, tmp_path / "file.csv")
    (tmp_path / "file.csv").write_text("Other text.\n")
    assert declared(home, tmp_path / "file.csv").texts == ("Other text.\n",)


# --- plan


@pytest.fixture(scope="module")
def home(base: Path) -> Home:
    home = open_home(base.parent / "home")
    entry = Model(name="tiny", kind="base", path=base, sha256=sha256_folder(base), size=1)
    registry.add(home, entry, who="t")
    return home


def test_the_plan_is_what_comes_out(home: Home, f16: Path, quantised: Callable[..., Path]) -> None:
    told = plan_files(home, "tiny", ["Q4_K_M", "IQ4_XS", "Q8_0"], device=10**6)
    assert [file["type"] for file in told["files"]] == ["F16", "Q4_K_M", "IQ4_XS", "Q8_0"]
    assert told["context"] == 640 and told["kv_bytes"] == 4 * 768 * 2 * 2 * 256 * 2  # cells come in 256s
    for file in told["files"]:
        real = f16 if file["type"] == "F16" else quantised(file["type"])
        header = read_gguf(real)
        assert file["size"] == pytest.approx(real.stat().st_size, rel=0.01)
        assert file["bits_per_weight"] == pytest.approx(header.bits_per_weight, abs=0.001)
        assert file["histogram"] == header.histogram
        assert file["memory"] == file["size"] + told["kv_bytes"] + told["compute_bytes"]
        assert file["fits_here"] and not file["fits_device"]
    assert registry.models(home)[0].name == "tiny" and len(registry.models(home)) == 1
    assert not list(home.path.glob("cloister-*"))


def test_the_plan_keeps_to_overrides_and_context(home: Home) -> None:
    spec = {"tensor_types": [["ffn_down", "Q8_0"]]}
    told = plan_files(home, "tiny", ["Q4_0"], spec=spec, context=128, slots=1)
    assert told["kv_bytes"] == 256 * 2 * 2 * 256 * 2
    assert told["files"][1]["histogram"]["Q8_0"] == 2
    with pytest.raises(ConfigWrong, match="No tensor is named nothing"):
        plan_files(home, "tiny", ["Q4_0"], spec={"tensor_types": [["nothing", "Q8_0"]]})


def test_memory_is_that_of_serving_without_options(f16: Path) -> None:
    from appliance.serve.opening import DEFAULT_CONTEXT, DEFAULT_SLOTS

    assert (CONTEXT, SLOTS) == (DEFAULT_CONTEXT, DEFAULT_SLOTS)
    assert memory(str(f16))["context"] == 640


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("512 MiB", 512 * 2**20), ("1.5g", 1_500_000_000), ("5000000b", 5_000_000)],
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["much", "4", "", "0GB", "999KB", "9" * 18 + "TB", "9" * 400 + "GB"])
def test_an_amount_without_sense_or_unit_is_refused(text: str) -> None:
    with pytest.raises(ConfigWrong):
        read_bytes(text)


# --- the job


def test_a_declared_calibration_is_kept_in_proof_and_audit(home: Home, tmp_path: Path) -> None:
    text = tmp_path / "public.txt"
    text.write_text("\n\n".join([*TEXTS[:8], *(question for question, _ in CHATS)]))
    folder = home.jobs / "own"
    folder.mkdir()
    job = Job(id="own", kind="quantize", folder=folder, home=home, who="mira")
    spec = {"model": "tiny", "types": ["Q4_K_M"], "calibration": str(text)}
    spec |= {"limits": {"Q4_K_M": {"kld_mean": 9.0, "same_top_clear": 0.0, "perplexity_ratio": 9.0}}}
    file = run(spec, job)["files"][1]
    assert file["proof"]["imatrix"]["dataset"].startswith("public.txt ")
    assert file["proof"]["imatrix"]["declared_public_by"] == "mira"
    assert file["name"].startswith("tiny-q4_k_m-imatrix-")
    with reading(home) as link:
        lines = [line for line in audit.tail(link, 20) if line["what"] == "quantize.calibration"]
    assert [(line["who"], line["declared"], line["file"]) for line in lines] == [
        ("mira", "public", "public.txt")
    ]
    assert json.loads(Path(file["proof"]["path"]).read_text())["recipe"]["matrix"] is True
    again = run(spec, job)["files"]
    assert [entry["reused"] for entry in again] == [True, True]


@pytest.mark.skipif("CLOISTER_LLAMA_QUANTIZE" not in os.environ, reason="needs a native llama-quantize")
@pytest.mark.parametrize("kind", sorted(QUANTISED))
def test_the_bytes_are_those_of_the_native_tool(
    kind: str, f16: Path, quantised: Callable[..., Path], matrix: Path, tmp_path: Path
) -> None:
    tool, native = os.environ["CLOISTER_LLAMA_QUANTIZE"], tmp_path / "native.gguf"
    subprocess.run([tool, str(f16), str(native), kind, "2"], check=True, capture_output=True)
    assert native.read_bytes() == quantised(kind).read_bytes()
    weighed = [tool, "--imatrix", str(matrix), str(f16), str(native), kind, "2"]
    subprocess.run(weighed, check=True, capture_output=True)
    ours = {t.name: t.data for t in GGUFReader(quantised(kind, matrix=str(matrix))).tensors}
    assert all(np.array_equal(t.data, ours[t.name]) for t in GGUFReader(native).tensors)
