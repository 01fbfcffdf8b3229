"""Every test gets a home of its own; nothing reads or writes the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.core.home import Home, open_home
from appliance.core.offline import stay_offline

stay_offline()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")
