"""What an endpoint is made of: its models, their engines, the embedder, and what surrounds them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.models import registry
from appliance.models.registry import Model
from appliance.models.task import Task, task_from
from appliance.security import audit
from appliance.serve import routes
from appliance.serve.admission import names_of
from appliance.serve.checked import CheckedFile, loading
from appliance.serve.chosen import Chosen, choose
from appliance.serve.documents.embedding import Embedder as DocumentEmbedder
from appliance.serve.documents.embedding import embedder_id
from appliance.serve.documents.parts import CONTEXT, LONGEST, joined, parts
from appliance.serve.embedding import Embedder, pick_embedder, read_form
from appliance.serve.engine import Engine, pick_engine
from appliance.serve.header import Header, read_header
from appliance.serve.house import House, Offer

CACHES = ("off", "exact", "near")
DEFAULT_CONTEXT, DEFAULT_SLOTS = 4096, 4


def choose_all(
    spec: dict[str, Any], home: Home, log: Callable[[str], None] = lambda text: None
) -> list[Chosen]:
    """What answers to each name asked for; a route stands for both of its models.

    Raises:
        NotFound, GateFailed: as `choose`.
    """
    known = routes.load(home)
    names: list[str] = []
    for name in spec.get("models") or [spec["model"]]:
        names += [known[name].a, known[name].b] if name in known else [name]
    found = [choose(home, name, gated=not spec.get("ungated")) for name in dict.fromkeys(names)]
    for one in found:
        if one.name != one.asked:
            log(f"Serving {one.name}, the file made from {one.asked}.")
    return found


def open_house(spec: dict[str, Any], job: Job, chosen: Sequence[Chosen], held: ExitStack) -> House:
    """The house of `chosen`; its files stay open for as long as `held`, so that nobody can swap them.

    Raises:
        NotFound, ModelChanged: a file is gone, or not the one that was registered.
    """
    files: dict[str, CheckedFile] = {}
    headers: dict[str, Header] = {}

    def header_of(name: str) -> Callable[[Path], None]:
        return lambda path: headers.update({name: read_header(path)})

    for one in chosen:
        if one.file.name not in files:
            files[one.file.name] = _held(one.file, held, header_of(one.file.name))
        if one.adapter is not None and one.adapter.name not in files:
            files[one.adapter.name] = _held(one.adapter, held)
    adapters: dict[str, list[str]] = {name: [] for name in headers}
    aliases: dict[str, list[str]] = {}
    for one in chosen:
        if one.adapter is not None and one.adapter.name not in adapters[one.file.name]:
            adapters[one.file.name].append(one.adapter.name)
        aliases.setdefault(one.name, []).extend([one.asked] if one.asked != one.name else [])
    offers = [
        Offer(
            name=one.name,
            file=one.file.name,
            header=headers[one.file.name],
            aliases=tuple(aliases[one.name]),
            origins=names_of(one.adapter or one.file)[1:],
            task=_task_of(one, headers[one.file.name]),
            adapter=None if one.adapter is None else adapters[one.file.name].index(one.adapter.name),
            sha256=(one.adapter or one.file).sha256,
        )
        for one in {one.name: one for one in chosen}.values()
    ]

    contexts = {name: context_of(spec, name, header) for name, header in headers.items()}

    def own_of(name: str) -> list[CheckedFile]:
        return [files[name], *(files[adapter] for adapter in adapters[name])]

    def engine(name: str) -> Callable[[], Engine]:
        own = own_of(name)
        return lambda: pick_engine(
            spec.get("engine") or "auto",
            own[0].path,
            adapters=[file.path for file in own[1:]],
            loading=loading(own),
            folder=job.folder / "engine" / name,
            context=contexts[name],
            slots=int(spec.get("slots") or DEFAULT_SLOTS),
            **_shared(spec, job),
        )

    return House(
        offers,
        {name: engine(name) for name in headers},
        most=spec.get("most_loaded"),
        system=spec.get("system") or "",
        checks={name: loading(own_of(name)) for name in headers},
    )


def open_embedder(spec: dict[str, Any], job: Job, held: ExitStack) -> Embedder | None:
    """The embedding model asked for, not started.

    Raises:
        NotFound, ConfigWrong, ModelRejected: there is no such model, or it is none.
    """
    name = spec.get("embed")
    if not name:
        return None
    embedder_id(job.home, name)
    pooled: list[bool] = []
    file = _held(registry.get(job.home, name), held, lambda path: pooled.append(read_form(path).pooled))
    if not pooled[0]:
        # Not refused, unlike by `docs add`: whoever asks for vectors sees what they are worth, and no
        # search in documents uses them.
        job.log(f"{name} is no embedding model; the mean of its states stands in for one, and finds less.")
    return pick_embedder(
        spec.get("engine") or "auto",
        file.path,
        folder=job.folder / "engine" / "embed",
        loading=loading([file]),
        **_shared(spec, job),
    )


def for_documents(embedder: Embedder, name: str, known: str) -> DocumentEmbedder:
    """The running embedder for the search in documents, which runs in threads beside this loop."""
    import numpy as np

    loop = asyncio.get_running_loop()

    most = min(embedder.context, CONTEXT)

    async def cut(texts: Sequence[str]) -> list[list[list[int]]]:
        frame = await embedder.tokenize("")
        return [parts(await embedder.tokenize(text[:LONGEST]), frame, most) for text in texts]

    async def embed(texts: Sequence[str]) -> Any:
        whole = await cut(texts)
        vectors = iter(await embedder.embed([part for each in whole for part in each]))
        found = [(np.array([next(vectors) for _ in each]), [len(part) for part in each]) for each in whole]
        return np.array([joined(some, weights) for some, weights in found], np.float32)

    def wait(texts: Sequence[str]) -> Any:
        return asyncio.run_coroutine_threadsafe(embed(texts), loop).result()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(each) for each in asyncio.run_coroutine_threadsafe(cut(texts), loop).result()]

    return DocumentEmbedder(name=name, id=known, embed=wait, parts=count)


def check_cache(spec: dict[str, Any]) -> str:
    """Which cache of answers is wanted.

    Raises:
        ConfigWrong: there is none of that name.
    """
    wanted = spec.get("cache") or "exact"
    if wanted not in CACHES:
        raise ConfigWrong(f"There is no cache called {wanted}.", f"Choose one of {', '.join(CACHES)}.")
    return str(wanted)


def note(job: Job, chosen: Sequence[Chosen], url: str, *, ungated: bool) -> None:
    """Write to the audit log what is served, and whether it had to pass the gate."""
    with transaction(job.home) as link:
        for one in chosen:
            audit.record(
                link,
                who=job.who,
                what="serve.start",
                target=one.name,
                sha256=(one.adapter or one.file).sha256,
                url=url,
                ungated=ungated,
            )


def context_of(spec: dict[str, Any], name: str, header: Header) -> int:
    """Tokens that one request may fill, prompt and answer.

    Raises:
        ConfigWrong: more than the model reads.
    """
    wanted = spec.get("context")
    if wanted is not None and int(wanted) > header.context:
        raise ConfigWrong(
            f"{name} reads {header.context} tokens; a context of {wanted} is more than it was made for.",
            f"Give --context {header.context} or less, or leave it out.",
        )
    return min(header.context, int(wanted or DEFAULT_CONTEXT))


def _shared(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    memory = spec.get("memory_mb")
    return {
        "threads": spec.get("threads"),
        "memory": int(memory) << 20 if memory else None,
        "sleep_after": spec.get("sleep_after"),
        "log": job.log,
    }


def _held(model: Model, held: ExitStack, look: Callable[[Path], object] = lambda path: None) -> CheckedFile:
    file = CheckedFile(model, look)
    held.callback(file.close)
    return file


def _task_of(one: Chosen, header: Header) -> Task | None:
    """What the answering model is for: an adapter's own task, else the file's, else the registry's."""
    if one.adapter is None and header.task is not None:
        return header.task
    facts = (one.adapter or one.file).facts.get("task")
    return task_from(facts) if facts else None
