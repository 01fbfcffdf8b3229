"""cloister federate init: the options of an agreement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.errors import ConfigWrong
from tui.cli.asking import new_passphrase
from tui.cli.face import Face
from tui.federation_terms import USUAL, Terms, drafted


def init(
    face: Face,
    name: Annotated[str, typer.Argument(help="What the federation will be called.")],
    gateway: Annotated[
        str, typer.Option(help="HOST:PORT of this machine, as sites reach it. Default: its name, port 8443.")
    ] = "",
    also: Annotated[
        list[str] | None, typer.Option(help="Another name or address of this machine. Repeat.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model; may be left out when there is one.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Take task, prompt, labels and unit from this dataset here.")
    ] = None,
    task: Annotated[str, typer.Option(help="Without a dataset: label, answer, chat, text.")] = "label",
    prompt: Annotated[str | None, typer.Option(help="Without a dataset: the prompt, with {text}.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Without a dataset: a label. Repeat.")] = None,
    unit: Annotated[str, typer.Option(help="Whose privacy is protected, if no dataset says so.")] = "patient",
    rounds: Annotated[int, typer.Option(help="How many rounds.")] = USUAL.rounds,
    quorum: Annotated[int, typer.Option(help="The fewest updates of a round.")] = USUAL.quorum,
    min_cohort: Annotated[int, typer.Option(help="The fewest sites that are averaged.")] = USUAL.min_cohort,
    deadline: Annotated[float, typer.Option(help="Minutes that a round waits for all.")] = USUAL.deadline,
    rule: Annotated[str, typer.Option(help="mean, median, trimmed-mean or krum.")] = USUAL.rule,
    secure: Annotated[
        bool,
        typer.Option(
            "--secure",
            help="Secure aggregation: the coordinator sees the sum alone. Needs rule mean, and links.",
        ),
    ] = False,
    packing: Annotated[str, typer.Option(help="How updates travel: f32, f16 or i8.")] = USUAL.packing,
    clip_bound: Annotated[
        float, typer.Option(help="The largest norm of a site's change in a round.")
    ] = USUAL.clip_bound,
    server: Annotated[str, typer.Option(help="fedavg or fedadam.")] = USUAL.server,
    server_learning_rate: Annotated[
        float, typer.Option(help="Of the coordinator's step.")
    ] = USUAL.server_learning_rate,
    proximal: Annotated[float, typer.Option(help="FedProx' mu; 0 is off.")] = USUAL.proximal,
    products: Annotated[
        bool, typer.Option("--products", help="Average the products of LoRA's matrices.")
    ] = False,
    epsilon: Annotated[float, typer.Option(help="The most each site spends in all rounds.")] = USUAL.epsilon,
    delta: Annotated[
        float | None,
        typer.Option(help="Below 1 / patients of every site. Default: from the dataset, or 1e-5."),
    ] = None,
    public: Annotated[bool, typer.Option("--open", help="Train WITHOUT privacy.")] = False,
    steps: Annotated[int, typer.Option(help="Steps of a site in a round.")] = USUAL.steps,
    sample_rate: Annotated[float, typer.Option(help="Share of the patients in a step.")] = USUAL.sample_rate,
    learning_rate: Annotated[float, typer.Option(help="Of a site's step.")] = USUAL.learning_rate,
    max_grad_norm: Annotated[
        float, typer.Option(help="Clip bound of one patient's gradient.")
    ] = USUAL.max_grad_norm,
    records_per_unit: Annotated[
        int, typer.Option(help="Records of one patient in a step.")
    ] = USUAL.records_per_unit,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a record.")] = USUAL.max_tokens,
    rank: Annotated[int, typer.Option(help="LoRA's rank.")] = USUAL.rank,
    alpha: Annotated[int, typer.Option(help="LoRA's alpha.")] = USUAL.alpha,
    rslora: Annotated[bool, typer.Option("--rslora", help="Scale by alpha / sqrt(rank).")] = False,
    target: Annotated[list[str] | None, typer.Option(help="A layer that gets an adapter. Repeat.")] = None,
    layers: Annotated[int, typer.Option(help="Of so many last layers; 0: of all.")] = USUAL.layers,
    train_a: Annotated[bool, typer.Option("--train-a", help="Train LoRA's A too, not B alone.")] = False,
    seed: Annotated[int, typer.Option(help="What LoRA's A is drawn with.")] = USUAL.seed,
    days: Annotated[int, typer.Option(help="How long the agreement holds.")] = USUAL.days,
    authority_to: Annotated[
        Path | None,
        typer.Option(help="Write the authority's key to this file, on a stick, not into the home."),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="A file with a passphrase for that key. Left out, it is typed twice.")
    ] = None,
) -> None:
    """At the coordinator: make a federation, with an authority of its own.

    All that decides what is trained, on what, and what may be spent is agreed on here, and signed.
    """
    from tui import session_federate

    chosen = face.session.base(base).name
    given = _task(face, dataset, task, prompt, label, unit)
    terms = Terms(
        rounds=rounds,
        quorum=quorum,
        min_cohort=min_cohort,
        deadline=deadline,
        rule=rule,
        secure=secure,
        packing=packing,
        clip_bound=clip_bound,
        server=server,
        server_learning_rate=server_learning_rate,
        proximal=proximal,
        products=products,
        private=not public,
        epsilon=epsilon,
        delta=delta,
        steps=steps,
        sample_rate=sample_rate,
        learning_rate=learning_rate,
        max_grad_norm=max_grad_norm,
        records_per_unit=records_per_unit,
        max_tokens=max_tokens,
        rank=rank,
        alpha=alpha,
        rslora=rslora,
        targets=target or USUAL.targets,
        layers=layers,
        train_a=train_a,
        seed=seed,
        days=days,
    )
    draft = drafted(terms, name, gateway=gateway, also=also or (), base=chosen, given=given)
    passphrase = ""
    if authority_to is not None:
        passphrase = new_passphrase("the authority's key", passphrase_file, "--passphrase-file FILE")
    made = session_federate.init(
        face.session, draft, authority_to=authority_to and authority_to.absolute(), passphrase=passphrase
    )
    face.say(f"{name}: {rounds} rounds on {chosen}, gateway {made['gateway']}, until {made['expires'][:10]}")
    face.say(f"  our words  {made['words']}")
    if authority_to is not None:
        face.wrap(
            f"The authority's key is in {authority_to}: keep it apart. `approve` needs it, nothing else."
        )
    else:
        face.wrap("The authority's key is in this home. Safer is a stick: --authority-to FILE")
    if secure:
        face.wrap(
            "The coordinator sees the sum of the sites' updates and no single one, so it cannot look for bad"
            " ones. No site's rounds can be carried by stick."
        )
    else:
        face.wrap("The coordinator sees each site's update: private as agreed, and not secret to it.")
    face.wrap(f"Next, at each site: cloister federate request {name} --dataset DATASET")
    face.result(made)


def _task(
    face: Face, dataset: str | None, task: str, prompt: str | None, labels: list[str] | None, unit: str
) -> dict[str, Any]:
    from tui import session_federate

    if dataset is not None:
        return session_federate.task_of(face.session, dataset)
    from appliance.data.store import PROMPTS

    if task not in PROMPTS or (task == "label") != bool(labels):
        raise ConfigWrong(
            "The task is not whole: label needs --label at least twice, others take none.",
            f"Name a --dataset here, or one of --task {', '.join(PROMPTS)} with its labels.",
        )
    said = {"kind": task, "prompt": PROMPTS[task] if prompt is None else prompt, "labels": labels or []}
    return {"task": said, "unit": unit, "delta": 1e-5}
