"""Flower's SuperNode with three things changed: it takes one app only, looks for messages sooner, and hands
out a task when its message is whole.

    python -m federated.flower.node FAB_SHA256 -- arguments of flower-supernode

The changes reach into names that Flower does not promise (1.41); tests/federated/test_gateway.py and
test_links.py fail when they go. An app with another digest is answered INVALID_FAB and is never unpacked.
"""

from __future__ import annotations

import hashlib
import sys
import time
from types import SimpleNamespace
from typing import Any

from flwr.supercore import heartbeat
from flwr.supercore.fab import Fab
from flwr.supernode import fleet_http_connection
from flwr.supernode import start_client_internal as loop

from federated.flower.resident import ask_sooner, retrying

_HEARTBEAT = 10  # seconds, Flower's least: a node that was killed is let in again after two of them
_SOONER = 0.05  # of Flower's pauses: 3 s between looks, .5 s while the app works


class _Whole:
    """The node's state, but a task is made by `ready` alone: Flower makes it before the message's content is
    there, and leaves it when that never comes, so that whoever takes it waits for ever."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self._asked: dict[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def create_task(self, **asked: Any) -> int:
        """Remember it."""
        self._asked = asked
        return 0

    def finish_task(self, *ended: Any, **why: Any) -> None:
        """There is none yet."""
        self._asked = None

    def ready(self) -> None:
        """Make the task that was asked for."""
        if self._asked is not None:
            self._state.create_task(**self._asked)


def pin(wanted: str) -> None:
    """Have the node take the app with this digest and no other, and look more often."""
    ask_sooner()
    for module in (heartbeat, fleet_http_connection):
        setattr(module, "HEARTBEAT_DEFAULT_INTERVAL", _HEARTBEAT)  # noqa: B010
    setattr(fleet_http_connection, "make_simple_http_retry_invoker", retrying)  # noqa: B010
    pull = loop._pull_and_store_message

    def pull_pinned(*, state: Any, get_fab: Any, trusted_entities: Any, **rest: Any) -> int | None:
        def checked(digest: str, run: int) -> Fab:
            fab = get_fab(digest, run)
            same = hashlib.sha256(fab.content).hexdigest() == wanted
            return Fab(fab.hash_str, fab.content, {"valid_license": "pinned" if same else ""})

        held: Any = _Whole(state)
        run = pull(state=held, get_fab=checked, trusted_entities={"pinned": wanted}, **rest)
        if run is not None:
            held.ready()
        return run

    changes: dict[str, Any] = {
        "_pull_and_store_message": pull_pinned,
        "_verify_fab": lambda fab, trusted: fab.verifications["valid_license"] == "pinned",
        "time": SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * _SOONER)),
    }
    for name, changed in changes.items():
        setattr(loop, name, changed)


def main() -> None:
    """Run the node with the arguments after "--"."""
    from flwr.supernode.cli.flower_supernode import flower_supernode

    pin(sys.argv[1])
    sys.argv = ["flower-supernode", *sys.argv[3:]]
    flower_supernode()


if __name__ == "__main__":
    main()
