"""The app that a simulated node runs: the functions of federated/simulated.py, by name, in a message.

A request is JSON and the adapter, a reply is JSON and the updates: nothing that arrives is run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from federated import simulated
from federated.simulated import Answer, Ready

client = ClientApp()


def messages(sites: dict[int, list[str]], work: str, folder: str, rest: tuple[Any, ...]) -> list[Message]:
    """What each node is sent: its sites, and which function of simulated.py it calls with what."""
    numbers = [one for one in rest if isinstance(one, int)]
    adapter = b"".join(one for one in rest if isinstance(one, bytes))
    return [
        Message(
            content=_packed({"work": work, "folder": folder, "sites": some, "numbers": numbers}, [adapter]),
            dst_node_id=node,
            message_type="train",
        )
        for node, some in sites.items()
    ]


@client.train()
def work(message: Message, context: Context) -> Message:
    """Play the sites."""
    asked, (adapter,) = _unpacked(message.content)
    if asked["work"] == "prepared":
        return Message(
            content=_packed([asdict(one) for one in simulated.prepared(asked["folder"], asked["sites"])], []),
            reply_to=message,
        )
    number, cohort = asked["numbers"]
    done = simulated.answered(asked["folder"], asked["sites"], number, cohort, adapter)
    updates = [one.content if isinstance(one.content, bytes) else b"" for one in done]
    said = [
        asdict(replace(one, content="" if update else one.content))
        for one, update in zip(done, updates, strict=True)
    ]
    return Message(content=_packed(said, updates), reply_to=message)


def done(content: Any) -> list[Ready] | list[Answer]:
    """What a node replied."""
    said, updates = _unpacked(content)
    if not updates:
        return [Ready(**one) for one in said]
    return [
        replace(Answer(**one), content=update or one["content"])
        for one, update in zip(said, updates, strict=True)
    ]


def _packed(said: Any, blobs: list[bytes]) -> RecordDict:
    return RecordDict({"cloister": ConfigRecord({"said": json.dumps(said), "blobs": blobs})})


def _unpacked(content: Any) -> tuple[Any, list[bytes]]:
    held = content["cloister"]
    return json.loads(str(held["said"])), list(held["blobs"])
