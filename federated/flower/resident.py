"""Takes Flower's tasks in this process instead of starting one for each: a resident flower-superexec.

Flower starts a process for every message, which costs seconds and loads torch anew. Here one process takes
the task from the Runtime API with the SuperExec secret and serves it. The names used are Flower 1.41's own
and not promised by it; tests/federated/test_links.py fails when they go.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import run_from_proto
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    pull_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, exponential, make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})
_SHORT, _BODY = 4 << 20, "_body"
_PULLS = {"initial_backoff": 0.05, "backoff_cap": 2.0}
_SLOWEST = 4  # seconds between tries; Flower's 20 keep a site out long after its coordinator is back


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A Runtime API: its address, the authority of its certificate (None: no TLS), the SuperExec secret."""

    address: str
    authority: Path | None
    secret: bytes

    def client(self, *interceptors: Any, patient: bool = True) -> RuntimeHttpClient:
        """A client of it; a `patient` one tries for ever where nobody answers."""
        return RuntimeHttpClient.from_server_address(
            server_address=self.address,
            insecure=self.authority is None,
            root_certificates=self.certificates(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), *interceptors],
            retry_invoker=retrying() if patient else None,
        )

    def certificates(self) -> bytes | None:
        """The PEM of the authority."""
        return self.authority.read_bytes() if self.authority else None


def ask_sooner() -> None:
    """Have this process ask again soon for an object that was named and not sent yet; Flower waits 1 to 10 s,
    and messages are named before they are sent."""
    pulls: tuple[Any, ...] = (pull_objects, pull_and_inflate_object_from_tree)
    for pull in pulls:
        pull.__kwdefaults__.update(_PULLS)


def retrying() -> RetryInvoker:
    """Flower's way of trying again, a little sooner."""
    made = make_simple_http_retry_invoker()
    made.wait_gen_factory = lambda: exponential(max_delay=_SLOWEST)
    return made


def taking(runtime: Runtime) -> RuntimeHttpClient:
    """A client that may take tasks; to be kept, as each new one costs a look at all certificates."""
    return runtime.client(
        SuperExecAuthHttpInterceptor(master_secret=runtime.secret, protected_methods=_ACQUIRE), patient=False
    )


def acquire(client: RuntimeHttpClient, kind: str) -> str | None:
    """The token of a task of this kind ("flwr-serverapp", "flwr-clientapp"), which is then ours; or None.

    Raises:
        httpx.HTTPError: nobody answers just now; what has ended must be started again meanwhile.
    """
    found = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
    return found.token if found.HasField("task") and found.token else None


@dataclass
class Served:
    """One message at a site that waits for its answer."""

    client: RuntimeHttpClient
    message: Message
    context: Any
    beat: HeartbeatSender

    def answer(self, content: RecordDict) -> None:
        """Send the reply and end the task."""
        push_message(self.client, Message(content, reply_to=self.message), self.context)
        push_task_output(self.client, self.context, "completed", "")
        self.beat.stop()
        self.client.close()


def served(runtime: Runtime, token: str) -> Served:
    """Take the message of a client task."""
    client = runtime.client(RuntimeTokenHttpInterceptor(token))
    beat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    beat.start()
    message, context, _, _ = pull_task_input(client)
    return Served(client=client, message=message, context=context, beat=beat)


@dataclass
class Grid:
    """The coordinator's task: messages out and answers in."""

    grid: HttpGrid
    run_id: int
    beat: HeartbeatSender

    def close(self) -> None:
        """Leave the task."""
        self.beat.stop()
        self.grid.close()


def grid(runtime: Runtime, token: str) -> Grid:
    """Take the server task of a run."""
    made = HttpGrid(runtime.address, runtime.authority is None, runtime.certificates(), token=token)
    beat = HeartbeatSender(make_task_heartbeat_fn_http(made._runtime_client))
    beat.start()
    found = made._runtime_client.PullTaskInput(PullTaskInputRequest())
    made.set_run(run_from_proto(found.run))
    TaskIdentity.task_id, TaskIdentity.run_id = found.task_id, found.run.run_id
    TaskIdentity.node_id = found.context.node_id
    return Grid(grid=made, run_id=found.run.run_id, beat=beat)


def packed(head: dict[str, Any], body: bytes) -> RecordDict:
    """A message's content: numbers, texts and bytes of `head`, and `body`.

    A long body is an array, which Flower cuts into pieces; each piece, array and record is fetched by a call
    of its own, so a short one goes with the head.
    """
    if len(body) <= _SHORT:
        return RecordDict({"head": ConfigRecord({**head, _BODY: body})})
    array = Array(np.frombuffer(body, dtype=np.uint8))
    return RecordDict({"head": ConfigRecord(head), "body": ArrayRecord({"body": array})})


def unpacked(content: RecordDict) -> tuple[dict[str, Any], bytes]:
    """What `packed` made.

    Raises:
        ValueError, KeyError: it is something else.
    """
    head = content["head"]
    if not isinstance(head, ConfigRecord):
        raise ValueError("another kind of message")
    said = dict(head)
    if isinstance(short := said.pop(_BODY, None), bytes):
        return said, short
    body = content["body"]
    if not isinstance(body, ArrayRecord) or set(body) != {"body"}:
        raise ValueError("another kind of message")
    array = body["body"].numpy()
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError("another kind of array")
    return said, array.tobytes()
