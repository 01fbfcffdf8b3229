"""Who plays the simulated sites: processes of our own, or Flower's simulation engine, which runs on Ray.

Both call the same two functions (simulated.py), with some sites at a time, and give back what they return as
it comes. A node of Flower's engine plays some sites too: a message a site would cost more than a site does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.util import find_spec
from typing import Any, Literal

from appliance.core.crash import say_no_words
from appliance.core.errors import ConfigWrong, JobFailed, Stopped
from appliance.core.offline import stay_offline
from appliance.core.parent import die_with_parent

Engine = Literal["flower", "processes"]
ENGINES: tuple[Engine, ...] = ("flower", "processes")
Call = Callable[..., Iterator[list[Any]]]
_PARTS = 8  # a process gets in a round: small enough to keep all busy to the end
_STORE = 200_000_000  # bytes of Ray's shared memory


def check_engine(engine: str) -> None:
    """Check that an engine can be had.

    Raises:
        ConfigWrong: it is unknown, or not installed.
    """
    if engine not in ENGINES:
        raise ConfigWrong(f"There is no engine {engine[:40]}.", f"Choose one of {', '.join(ENGINES)}.")
    if engine == "flower" and find_spec("ray") is None:
        raise ConfigWrong(
            "Flower's simulation engine needs Ray, which is not installed.",
            "Install it: pip install 'cloister[simulate]'. Or add --engine processes, which needs nothing.",
        )


def played(engine: Engine, folder: str, sites: list[str], workers: int, body: Callable[[Call], None]) -> None:
    """Run `body(call)`; call(function, sites, ...) yields what function(folder, some sites, ...) returns.

    Raises:
        JobFailed: a process that plays sites ended.
    """
    some = max(1, -(-len(sites) // (_PARTS * workers)))
    parts = [sites[start : start + some] for start in range(0, len(sites), some)]
    (_on_flower if engine == "flower" else _on_processes)(folder, parts, workers, body)


def _chosen(parts: list[list[str]], asked: list[str]) -> list[tuple[int, list[str]]]:
    """(number, sites) of the parts in which some of the asked ones are."""
    wanted = set(asked)
    found = [(number, [site for site in part if site in wanted]) for number, part in enumerate(parts)]
    return [(number, some) for number, some in found if some]


def _on_processes(folder: str, parts: list[list[str]], workers: int, body: Callable[[Call], None]) -> None:
    context = multiprocessing.get_context("spawn")  # a fork would take over locks of torch's threads
    pool = ProcessPoolExecutor(workers, context, initializer=_begun, initargs=(os.getpid(),))
    try:

        def call(function: Callable[..., list[Any]], asked: list[str], *rest: Any) -> Iterator[list[Any]]:
            waiting = [pool.submit(function, folder, some, *rest) for _, some in _chosen(parts, asked)]
            for one in as_completed(waiting):
                yield one.result()

        body(call)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begun(parent: int) -> None:
    die_with_parent(parent)
    say_no_words()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_flower(folder: str, parts: list[list[str]], workers: int, body: Callable[[Call], None]) -> None:
    stay_offline()  # before Flower and Ray read the environment
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from federated.flower.simulation import client, done, messages

    ended: list[BaseException | None] = []
    asked_to_stop: list[int] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Any) -> None:
        try:
            nodes = _nodes(grid, len(parts))

            def call(function: Callable[..., list[Any]], asked: list[str], *rest: Any) -> Iterator[list[Any]]:
                there = {nodes[number]: some for number, some in _chosen(parts, asked)}
                open_ = set(grid.push_messages(messages(there, function.__name__, folder, rest)))
                while open_:
                    if asked_to_stop:
                        raise Stopped("The job was asked to stop.")
                    for reply in grid.pull_messages(open_):
                        open_.discard(reply.metadata.reply_to_message_id)
                        if reply.has_error():
                            raise JobFailed(
                                f"A process that plays sites ended (Flower's code {reply.error.code}).",
                                "See the job's log; with fewer --workers it needs less memory.",
                            )
                        yield done(reply.content)
                    time.sleep(0.02)

            body(call)
            ended.append(None)
        except BaseException as problem:  # Flower would log it, with its text, and end with another
            ended.append(problem)

    before = signal.signal(signal.SIGTERM, lambda number, frame: asked_to_stop.append(number))
    try:
        with tempfile.TemporaryDirectory(prefix="cl-ray-") as place, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_simulation(
                server_app=server,
                client_app=client,
                num_supernodes=len(parts),
                backend_config={
                    "init_args": {
                        "num_cpus": workers,
                        "include_dashboard": False,
                        "log_to_driver": False,
                        "object_store_memory": _STORE,
                        "_node_ip_address": "127.0.0.1",
                        "_temp_dir": place,
                    },
                    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                },
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    if not ended or ended[0] is not None:
        raise (ended[0] if ended and ended[0] else JobFailed("Flower's engine ended.", "See the job's log."))


def _nodes(grid: Any, count: int) -> list[int]:
    """The engine's nodes; the order is ours: which of them plays which sites does not matter."""
    until = time.monotonic() + 60
    while len(found := sorted(grid.get_node_ids())) < count:
        if time.monotonic() > until:
            raise JobFailed("Flower's engine did not start.", "See the job's log, or use --engine processes.")
        time.sleep(0.05)
    return found
