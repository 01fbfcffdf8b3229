"""Checks a base before anything opens it, then loads base and adapter for torch.

Only safetensors and JSON cross this border: a folder with pickled weights or code of its own is
refused, because opening either can run whatever its maker wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from appliance.core.errors import ModelRejected
from appliance.core.reading import local, read_bytes, read_text
from appliance.models.encoding import Encoder
from appliance.models.prompt import check_template
from appliance.models.safetensors import read_headers
from appliance.models.task import Task

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz")
_NEEDED = ("config.json", "tokenizer.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder.

    Raises:
        ModelRejected: it is missing, no regular file, or not an object.
    """
    if path.exists() and not path.is_file():
        raise ModelRejected(f"{path.name} is no regular file.", "Copy it again from its source.")
    try:
        value = json.loads(read_bytes(path))
    except FileNotFoundError as problem:
        raise ModelRejected(
            f"{path.name} is missing from {path.parent}.", "Copy the whole model folder."
        ) from problem
    except (ValueError, RecursionError) as problem:
        raise ModelRejected(f"{path.name} is not JSON.", "Copy it again from its source.") from problem
    if not isinstance(value, dict):
        raise ModelRejected(f"{path.name} is not a JSON object.", "Copy it again from its source.")
    return value


def check_checkpoint(folder: Path) -> None:
    """Check that `folder` is a whole, plain model: config, tokenizer, chat template, safetensors.

    Raises:
        ModelRejected: pickles, code, an adapter, missing or damaged files, already quantised, or a chat
            template that is not allowed.
    """
    if not folder.is_dir():
        raise ModelRejected(f"{folder} is not a folder.", "Point to a model folder, or to a .gguf file.")
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _PICKLES)
    if pickles:
        raise ModelRejected(
            f"{folder} holds pickled weights ({', '.join(pickles[:3])}), which can run code when opened.",
            "Use the safetensors version of this model, without those files.",
        )
    adapters = sorted(file.name for file in folder.glob("adapter_*"))
    if adapters:  # transformers would load it along, unasked
        raise ModelRejected(
            f"{folder} holds an adapter ({', '.join(adapters[:3])}) that would be loaded with the base.",
            "Use a folder with the base alone, without those files.",
        )
    code = sorted(file.name for file in folder.glob("*.py"))
    config = read_json(folder / "config.json")
    words = folder / "tokenizer_config.json"
    if code or "auto_map" in config or (words.exists() and "auto_map" in read_json(words)):
        raise ModelRejected(
            f"{folder} brings code of its own.", "Use a model that transformers supports as it is."
        )
    if "quantization_config" in config:
        raise ModelRejected(
            f"{folder} is already quantised.",
            "Use the full-precision version; Cloister quantises after tuning.",
        )
    for name in _NEEDED:
        read_json(folder / name)
    check_template(chat_template(folder))
    read_headers(folder)


def chat_template(folder: Path) -> str:
    """The model's chat template, from chat_template.jinja or tokenizer_config.json.

    Raises:
        ModelRejected: it has none.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return read_text(file)
    config = folder / "tokenizer_config.json"
    template = read_json(config).get("chat_template") if config.is_file() else None
    if not isinstance(template, str):
        raise ModelRejected(
            f"{folder} has no chat template.",
            "Use an instruct model, or add the template its makers give as chat_template.jinja.",
        )
    return template


def device() -> str:
    """Where torch computes here: "cuda" or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tokenizer(folder: Path) -> Any:
    """The base's tokenizer (transformers), from the folder alone."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(local(folder), local_files_only=True, trust_remote_code=False)


def encoder_for(tokenizer: Any, folder: Path, task: Task, limit: int) -> Encoder:
    """The encoder of a transformers tokenizer with the chat template in `folder`."""
    return Encoder(
        tokenize=lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"],
        template=chat_template(folder),
        bos_token=tokenizer.bos_token or "",
        eos_token=tokenizer.eos_token or "",
        eos=tokenizer.eos_token_id,
        task=task,
        limit=limit,
        pad_token=tokenizer.pad_token or "",
    )


def load_torch(base: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    """Base, with the adapter on top if given, in float32 and evaluation mode, and its tokenizer.

    Raises:
        ModelRejected: the folder does not pass `check_checkpoint` or transformers refuses it.
    """
    check_checkpoint(base)
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            local(base),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as problem:
        reason = str(problem).splitlines()[0]
        raise ModelRejected(
            f"transformers cannot load {base.name}: {reason}", "Check the folder's config.json."
        ) from problem
    model = model.to(device())
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, local(adapter), local_files_only=True)
    return model.eval(), load_tokenizer(base)
