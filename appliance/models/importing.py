"""Brings a base model into the site: checked, copied, then entered. Never used where it lay."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.core.db import reading
from appliance.core.errors import ApplianceError, ConfigWrong, ModelRejected, NotFound
from appliance.core.files import need_room, replacing, replacing_folder, sha256_file, sha256_folder
from appliance.core.home import Home
from appliance.core.reading import copy_plain, size_of
from appliance.models import registry, removal
from appliance.models.load import check_checkpoint, read_json
from appliance.models.registry import Model
from appliance.security.people import guard

DEMO_BASE = Path(__file__).parent / "base"
ARCHITECTURES = (  # those that quantize/arch.py can convert
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Phi3ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
)
IMPORT = "model.import"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.md", "LICENSE*", "NOTICE*", "tokenizer.model")


def check_model_name(name: str) -> str:
    """`name` itself, when it can name a model.

    Raises:
        ConfigWrong: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigWrong(
            "A model's name has 1 to 64 letters, digits, '-', '_' or '.', and begins with a letter or digit.",
            "Choose another --name.",
        )
    registry.check_word(name)
    return name


def import_base(
    home: Home, source: Path, name: str, *, check: Callable[[Path], object] | None = None, who: str
) -> Model:
    """Check the model folder `source`, copy what a base needs, and enter it as `name`.

    `check` is run on the folder and on the copy. Importing the same folder under the same name again
    returns the entry there is.

    Raises:
        NotFound: no such folder. ModelRejected: not a whole, plain checkpoint, or of an architecture that
        cannot be converted. ConfigWrong: bad or taken name. NoRoom: too little disk. NotAllowed: `who` may
        not import models.
    """
    check_model_name(name)
    _check_right(home, who, IMPORT, name)
    removal.sweep(home)
    if not source.exists():
        raise NotFound(f"There is nothing at {source}.", "Point to a model folder, or to a .gguf file.")
    if source != DEMO_BASE:
        _refuse_links(source)
    _check(source, check)
    files = _wanted(source)
    need_room(home.models, sum(file.stat().st_size for file in files))
    folder = home.models / name
    with replacing_folder(folder) as draft:
        for file in files:
            shutil.copyfile(file, draft / file.name)
        _check(draft, check)
        _refuse_taken(home, name, sha256_folder(draft))
    config = read_json(folder / "config.json")
    return registry.add(
        home,
        Model(
            name=name,
            kind="base",
            path=folder,
            sha256=sha256_folder(folder),
            size=sum(size_of(file) for file in folder.iterdir()),
            facts={"architecture": config.get("architectures"), "demo": source == DEMO_BASE},
        ),
        who=who,
        right=IMPORT,
    )


def import_gguf(
    home: Home,
    source: Path,
    name: str,
    *,
    check: Callable[[Path], dict[str, Any]],
    copy: Callable[[Path, Path], object] = shutil.copyfile,
    who: str,
    right: str = IMPORT,
) -> Model:
    """Copy the GGUF file `source`, run `check` on the copy, and enter it as `name`.

    `copy` may give a file of this home a second name instead: nothing is copied then. `right`: what this is
    called in the table of rights, where a bundle brought it.

    Raises:
        NotFound, ModelRejected, ConfigWrong, NoRoom, NotAllowed: as `import_base`.
    """
    check_model_name(name)
    _check_right(home, who, right, name)
    removal.sweep(home)
    if not source.is_file():
        raise NotFound(f"There is no file {source}.", "Point to a .gguf file.")
    need_room(home.models, source.stat().st_size)
    (home.models / name).mkdir(mode=0o700, exist_ok=True)
    path = gguf_place(home, name)
    with replacing(path) as draft:
        copy(source, draft)
        facts = _checked(check, draft, source)
        _refuse_taken(home, name, sha256_file(draft))
    return registry.add(
        home,
        Model(
            name=name,
            kind="gguf",
            path=path,
            sha256=sha256_file(path),
            size=size_of(path),
            facts={"imported": True, **facts},
        ),
        who=who,
        right=right,
    )


def gguf_place(home: Home, name: str) -> Path:
    """Where an imported GGUF file called `name` lies."""
    return home.models / name / f"{name}.gguf"


def enter_adapter(
    home: Home,
    files: Sequence[Path],
    name: str,
    *,
    base: Model,
    facts: dict[str, Any],
    who: str,
    right: str = IMPORT,
) -> Model:
    """Copy the checked files of a LoRA adapter and enter it as `name`, for `base`; `right` as `import_gguf`.

    Raises:
        ConfigWrong: the name is taken. NoRoom: too little disk. NotAllowed: `who` may not.
    """
    _check_right(home, who, right, name)
    need_room(home.models, sum(file.stat().st_size for file in files))
    folder = home.models / name
    with replacing_folder(folder) as draft:
        for file in files:
            copy_plain(file, draft / file.name)
        _refuse_taken(home, name, sha256_folder(draft))
    return registry.add(
        home,
        Model(
            name=name,
            kind="adapter",
            path=folder,
            sha256=sha256_folder(folder),
            size=sum(size_of(file) for file in folder.iterdir()),
            parent=base.name,
            facts={"imported": True, **facts},
        ),
        who=who,
        right=right,
    )


def _check_right(home: Home, who: str, right: str, name: str) -> None:
    """Asked before a file is written; registry.add asks again in its transaction, which is what counts."""
    with reading(home) as link:
        guard.spend(link, home, who, right, name)


def _checked(check: Callable[[Path], dict[str, Any]], draft: Path, source: Path) -> dict[str, Any]:
    """The facts of the copy `draft`; what is said against it names the file that the person gave."""
    with draft.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelRejected(
                f"{source.name} is not a GGUF file.", "Point to a .gguf file or a model folder."
            )
    try:
        return check(draft)
    except ApplianceError as problem:
        problem.message = problem.message.replace(draft.name, source.name)
        problem.hint = problem.hint.replace(draft.name, source.name)
        problem.args = (problem.message,)
        raise


def _wanted(source: Path) -> list[Path]:
    return sorted({file for pattern in _WANTED for file in source.glob(pattern) if file.is_file()})


def _refuse_links(source: Path) -> None:
    """A link out of the folder would copy a file that is not the model's; Hugging Face's cache may link."""
    folder = source.resolve()
    revisions = folder.parent
    cached = revisions.name == "snapshots" and revisions.parent.name.startswith("models--")
    for file in _wanted(source):
        target = file.resolve()
        if target.is_relative_to(folder) or (cached and target.parent == revisions.parent / "blobs"):
            continue
        raise ModelRejected(
            f"{file.name} in {source} is a link to a file outside of the folder.",
            "Copy the files themselves into one folder, for instance with cp -rL, and import that.",
        )


def _check(folder: Path, check: Callable[[Path], object] | None) -> None:
    check_checkpoint(folder)
    _check_architecture(folder)
    if check:
        check(folder)


def _check_architecture(folder: Path) -> None:
    """Said now: a base that cannot be converted would fail only after hours of training."""
    named = read_json(folder / "config.json").get("architectures")
    name = named[0] if isinstance(named, list) and named else named
    if name not in ARCHITECTURES:
        raise ModelRejected(
            f"This version does not support the architecture {name or 'of this model: none is named'}.",
            f"Use a base with one of these in its config.json: {', '.join(ARCHITECTURES)}.",
        )


def _refuse_taken(home: Home, name: str, sha256: str) -> None:
    """What is registered must not have its files replaced by others."""
    for model in registry.models(home):
        if model.name == name and model.sha256 != sha256:
            raise ConfigWrong(f"There is already a model named {name}.", "Choose another --name.")
