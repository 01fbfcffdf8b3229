from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from quantize_support import make_model


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One base of each family, made when first asked for."""
    made: dict[str, Path] = {}

    def base(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(family) / "base"
            bias = {"attention_bias": True} if family == "llama" else {}
            made[family] = make_model(folder, family=family, **bias)
        return made[family]

    return base
