"""The site's own expressions for tensors (--tensor-type), tried before anything is converted.

llama.cpp searches tensor names with std::regex (ECMAScript), which reads some expressions otherwise than
Python and others not at all; either can run for ever, or out of its stack, on an expression that is made
for it. So both are tried on the real names in a child with limits, and must agree.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from appliance.core.errors import ConfigWrong, EngineFailed
from appliance.core.files import temporary_place
from appliance.core.home import Home
from quantize import worker
from quantize.kernel import plan_types
from quantize.origin import Origin
from quantize.outline import outline
from quantize.recipe import Recipe

_PATIENCE = 60.0  # seconds, for a few hundred names
_HINT = "Give plain parts of names, such as ffn_down or blk.0.attn."


def check_overrides(home: Home, origin: Origin, recipes: Iterable[Recipe], file: Path | None = None) -> None:
    """Check that the tensor types of `recipes` name tensors of `origin`, for llama.cpp as for Python.

    `file`: an outline of the model's F16 file, if there is one already.

    Raises:
        ConfigWrong: an expression names none, or llama.cpp cannot use it or reads it otherwise.
    """
    own = {recipe.tensor_types: recipe for recipe in recipes if recipe.tensor_types}
    if not own:
        return
    with tempfile.TemporaryDirectory(prefix="cloister-", dir=temporary_place(home.path)) as folder:
        if file is None:
            file = Path(folder) / "outline.gguf"
            outline(origin, file)
        names = [tensor.name for tensor in origin.plan.tensors]
        for recipe in own.values():
            try:
                worker.run(
                    try_overrides,
                    doing="Trying the expressions of the tensor types",
                    timeout=_PATIENCE,
                    source=str(file),
                    kind=recipe.kind,
                    tensor_types=[list(pair) for pair in recipe.tensor_types],
                    names=names,
                )
            except EngineFailed as problem:
                raise ConfigWrong(problem.message, _HINT) from problem


def try_overrides(
    source: str, kind: str, tensor_types: Sequence[Sequence[str]], names: Sequence[str]
) -> None:
    """See check_overrides, for one recipe; in a child.

    Raises:
        ConfigWrong: an expression is none, names no tensor, or means something else to llama.cpp.
        EngineFailed: llama.cpp cannot read one.
    """
    meant: dict[str, str] = {}
    for pattern, name in tensor_types:
        hit = [tensor for tensor in names if re.search(pattern, tensor)]
        if not hit:
            raise ConfigWrong(f"No tensor is named {pattern}.", f"Names look like {names[-1]}.")
        for tensor in hit:
            meant.setdefault(tensor, name)
    exact = [[f"^{tensor.replace('.', '[.]')}$", name] for tensor, name in meant.items()]
    if plan_types(source, kind, tensor_types) != plan_types(source, kind, exact):
        raise ConfigWrong("llama.cpp reads an expression of the tensor types in another way.", _HINT)
