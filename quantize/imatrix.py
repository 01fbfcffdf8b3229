"""The importance matrix: how strongly each column of a weight matrix is used, on public text.

For every product of a weight matrix with activations, the sum of the squares of each activation
column and the number of rows: what llama.cpp's llama-imatrix collects. The quantiser then rounds
well-used columns more carefully. Collected in a callback that the scheduler calls after each node,
on a mirror of `struct ggml_tensor` that is checked against the library before use.

File: GGUF, as llama-imatrix writes and llama-quantize reads it: `NAME.in_sum2` [columns] and
`NAME.counts` [1] in F32 for each matrix, and imatrix.datasets, .chunk_count, .chunk_size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter

from appliance.core.errors import EngineFailed, ModelRejected
from appliance.core.files import replacing
from appliance.models.llama import LlamaFile, library
from appliance.models.prompt import render

CHUNK = 256  # tokens seen together
LEAST, MOST, EFFORT = 1024, 16384, 2e12  # tokens in all: EFFORT / parameters, within bounds
_F32 = 0  # ggml_type


class _Tensor(ctypes.Structure):
    """Mirror of `struct ggml_tensor` (ggml.h)."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


class _Room(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Name -> mean square per column (float32, contiguous), and what it was collected on."""

    means: dict[str, np.ndarray]
    dataset: str
    chunks: int


class Collector:
    """Sums over all products that pass the callback `watch`; a failure in it is kept in `problem`."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}
        self.counts: dict[str, int] = {}
        self.problem: Exception | None = None
        self.watch = library().ggml_backend_sched_eval_callback(self._watch)
        self._ggml, self._product = ggml()

    def _watch(self, address: int, ask: bool, data: Any) -> bool:
        try:
            node = _Tensor.from_address(address)
            if ask:
                return node.op == self._product and self._wanted(node)
            if self.problem is None:
                self._add(node)
        except Exception as problem:  # C cannot carry it; whoever runs the model raises it
            self.problem = self.problem or problem
        return not ask and self.problem is None

    def _wanted(self, node: _Tensor) -> bool:
        """A layer's weight matrix times activations. The last matrix is left out, as upstream does."""
        weight, rows = (_Tensor.from_address(node.src[i]) for i in (0, 1))
        name = weight.name.decode()
        return (
            name.startswith("blk.") and name.endswith(".weight") and rows.type == _F32 and weight.ne[2] == 1
        )

    def _add(self, node: _Tensor) -> None:
        name = _Tensor.from_address(node.src[0]).name.decode()
        rows = _Tensor.from_address(node.src[1])
        size = self._ggml.ggml_nbytes(node.src[1])
        raw = np.empty(size, np.uint8)
        self._ggml.ggml_backend_tensor_get(node.src[1], raw.ctypes.data, 0, size)
        values: np.ndarray = np.ndarray(
            tuple(rows.ne)[::-1], np.float32, raw.data, strides=tuple(rows.nb)[::-1]
        )
        squares = np.square(values, dtype=np.float64).sum(axis=(0, 1, 2))
        if not np.isfinite(squares).all():
            raise EngineFailed(f"The activations of {name} are no numbers.", "The model is damaged.")
        self.sums[name] = self.sums.get(name, 0.0) + squares
        self.counts[name] = self.counts.get(name, 0) + values.size // values.shape[-1]


@cache
def ggml() -> tuple[Any, int]:
    """ggml's own library, and its number of the product MUL_MAT; checks the mirror against it.

    Raises:
        EngineFailed: the mirror is not this library's tensor.
    """
    library()
    from llama_cpp._ggml import libggml as lib

    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    for name, result, arguments in (
        ("ggml_init", pointer, [_Room]),
        ("ggml_free", None, [pointer]),
        ("ggml_new_tensor_2d", pointer, [pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]),
        ("ggml_set_name", pointer, [pointer, text]),
        ("ggml_get_name", text, [pointer]),
        ("ggml_get_data", pointer, [pointer]),
        ("ggml_op_desc", text, [pointer]),
        ("ggml_mul_mat", pointer, [pointer, pointer, pointer]),
        ("ggml_nbytes", size, [pointer]),
        ("ggml_backend_tensor_get", None, [pointer, pointer, size, size]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    context = lib.ggml_init(_Room(1 << 16, None, False))
    try:
        made = [lib.ggml_new_tensor_2d(context, _F32, 3, rows) for rows in (5, 7)]
        lib.ggml_set_name(made[0], b"blk.0.check.weight")
        product = lib.ggml_mul_mat(context, *made)
        first, node = _Tensor.from_address(made[0]), _Tensor.from_address(product)
        same = (
            first.name == lib.ggml_get_name(made[0]) == b"blk.0.check.weight"
            and (list(first.ne), list(first.nb)) == ([3, 5, 1, 1], [4, 12, 60, 60])
            and (first.type, first.data) == (_F32, lib.ggml_get_data(made[0]))
            and (lib.ggml_op_desc(product), node.src[0], node.src[1]) == (b"MUL_MAT", *made)
        )
        code = int(node.op)
    finally:
        lib.ggml_free(context)
    if not same:
        raise EngineFailed(
            "Importance matrices cannot be collected with this version of llama.cpp.",
            "Install the version that Cloister names, or quantise without one.",
        )
    return lib, code


def collect(
    file: str,
    target: str,
    texts: Sequence[str],
    chats: Sequence[Sequence[str]],
    dataset: str,
    parameters: int,
) -> dict[str, int]:
    """Run the model over `texts` and `chats` (question, answer) and write the matrix to `target`.

    `dataset` names the texts in the file. Returns how many tokens and matrices it holds. In a child.

    Raises:
        EngineFailed: the model could not be run.
        ModelRejected: the texts are too few for one chunk.
    """
    collector = Collector()
    most = int(min(MOST, max(LEAST, EFFORT / parameters)))
    with LlamaFile(file, context=CHUNK, watch=collector.watch) as llama:
        ids = [token for text in _spoken(llama, chats, texts) for token in text][:most]
        starts = [llama.bos] if llama.metadata.get("tokenizer.ggml.add_bos_token") == "true" else []
        step = CHUNK - len(starts)
        chunks = [starts + ids[at : at + step] for at in range(0, len(ids), step)]
        chunks = [chunk for chunk in chunks if len(chunk) >= CHUNK // 2]
        if not chunks:
            raise ModelRejected(
                f"The calibration text has {len(ids)} tokens, too few.", f"Give {CHUNK} or more."
            )
        for chunk in chunks:
            run_chunk(llama, chunk, collector)
    save_matrix(Path(target), collector.sums, collector.counts, dataset)
    return {"tokens": sum(map(len, chunks)), "matrices": len(collector.sums)}


def run_chunk(llama: LlamaFile, chunk: Sequence[int], collector: Collector) -> None:
    """One pass over `chunk`, every position's result wanted, so that the last layer sees all of them."""
    count = len(chunk)
    try:
        library().llama_memory_clear(library().llama_get_memory(llama.ctx), True)
        llama.run(
            np.array(chunk, np.int32),
            np.arange(count, dtype=np.int32),
            np.zeros(count, np.int32),
            np.ones(count, np.int8),
        )
        library().llama_synchronize(llama.ctx)
    except EngineFailed as problem:
        if collector.problem is None:
            raise
        raise collector.problem from problem
    if collector.problem is not None:
        raise collector.problem


def _spoken(llama: LlamaFile, chats: Iterable[Sequence[str]], texts: Iterable[str]) -> list[list[int]]:
    """Token ids of chats in the model's own form and of plain texts, mixed."""
    ids = []
    for question, answer in chats:
        prompt = render(
            llama.chat_template or "",
            [{"role": "user", "content": question}],
            bos_token="",
            eos_token=llama.piece(llama.eos).decode("utf-8", "replace"),
            pad_token=llama.piece(llama.pad).decode("utf-8", "replace") if llama.pad >= 0 else "",
        )
        ids.append(llama.tokenize(prompt + answer, special=True))
    plain = [llama.tokenize(text, special=False) for text in texts]
    every = max(1, len(plain) // max(1, len(ids)))
    mixed = []
    while plain or ids:
        mixed += plain[:every] + ids[:1]
        plain, ids = plain[every:], ids[1:]
    return mixed


def save_matrix(target: Path, sums: dict[str, np.ndarray], counts: dict[str, int], dataset: str) -> None:
    """Write `target`, all of it or nothing."""
    with replacing(target) as draft:
        writer = GGUFWriter(draft, "")
        writer.kv_data[0].pop("general.architecture", None)
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [dataset])
        writer.add_uint32("imatrix.chunk_count", max(counts.values()) // CHUNK)
        writer.add_uint32("imatrix.chunk_size", CHUNK)
        for name in sorted(sums):
            writer.add_tensor(f"{name}.in_sum2", sums[name].astype(np.float32)[None])
            writer.add_tensor(f"{name}.counts", np.array([[counts[name]]], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def load_matrix(path: Path) -> Matrix:
    """The matrix that `save_matrix` wrote.

    Raises:
        ModelRejected: it is not whole, or holds something that is no number.
    """
    reader = GGUFReader(path)
    data = {tensor.name: np.array(tensor.data, np.float32).ravel() for tensor in reader.tensors}
    means = {}
    for name, sums in data.items():
        if not name.endswith(".in_sum2"):
            continue
        plain = name.removesuffix(".in_sum2")
        count = data.get(f"{plain}.counts", np.zeros(1))
        if len(count) != 1 or not count[0] > 0 or not np.isfinite(sums).all():
            raise ModelRejected(f"{path.name} has no usable entry for {plain}.", "Collect it again.")
        means[plain] = np.ascontiguousarray(sums / count[0], np.float32)
    texts, chunks = reader.get_field("imatrix.datasets"), reader.get_field("imatrix.chunk_count")
    if not means or texts is None or chunks is None:
        raise ModelRejected(f"{path.name} is no importance matrix.", "Collect it again.")
    return Matrix(means=means, dataset=str(texts.contents()[0]), chunks=int(chunks.contents()))
