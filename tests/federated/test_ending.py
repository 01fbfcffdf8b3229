"""The end of a federation: closed by its coordinator alone, heard by its sites, and no key outlives it."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from enrol_support import Hospital, approved, coordinator, hospital
from secure_world import World
from world import key, public

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, TrustRefused
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security import audit, canonical
from federated import checkpoint, description, ending, enrol, farewell, hub, member, standing
from federated.description import Federation
from federated.flower.frames import Frame, Line


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Hospital, Hospital]:
    """A coordinator and a site that has joined."""
    made, anna = coordinator(tmp_path, monkeypatch), hospital(tmp_path, "anna")
    anna.join(approved(made, anna.request()).kit)
    return made, anna


def entries(home: Home) -> list[str]:
    """What the audit log tells."""
    with reading(home) as link:
        return [entry["what"] for entry in audit.tail(link, 50)]


def private(who: Hospital) -> set[str]:
    """The private keys of a federation that are in a home."""
    names = ("authority.key", "x25519.key", "link/pki/server.key", "link/pki/site.key", "link/pki/node")
    return {name for name in names if (who.place.path / name).exists()}


def test_the_coordinator_ends_it_and_nothing_can_be_done_under_it(pair: tuple[Hospital, Hospital]) -> None:
    made, anna = pair
    with pytest.raises(ConfigWrong, match="0 of") as left:
        ending.end(made.home, "north", who="ana")
    assert "--unfinished" in left.value.hint and not standing.agreed(made.place).ended
    with pytest.raises(ConfigWrong, match="is a site of"):
        ending.end(anna.home, "north", who="ana", unfinished=True)
    before = standing.agreed(made.place).version
    done = ending.end(made.home, "north", who="ana", unfinished=True)
    assert done.federation.ended and done.federation.version == before + 1 and not done.before
    assert description.parsed((made.place.link / "agreement.toml").read_bytes()).ended
    assert ending.end(made.home, "north", who="ana").before
    assert ending.retire(made.home, made.place, who="ana") == ["authority.key", "link/pki/server.key"]
    assert private(made) == set() and ending.retire(made.home, made.place, who="ana") == []
    assert entries(made.home)[-2:] == ["federate.end", "federate.retire"]
    with pytest.raises(ConfigWrong, match="has ended"):
        approved(made, hospital(made.home.path.parent, "late").request())


def test_those_who_look_while_an_agreement_is_written_hinder_nobody(pair: tuple[Hospital, Hospital]) -> None:
    place, own = pair[0].place, standing.own_keys(pair[0].home)
    over = threading.Event()

    def look(_: int) -> None:
        while not over.is_set():
            standing.agreed(place)

    with ThreadPoolExecutor(4) as pool:
        looks = [pool.submit(look, number) for number in range(4)]
        try:
            for _ in range(30):
                after = standing.next_version(standing.agreed(place))
                content, signature = standing.signed(after, own)
                standing.put(place, content, signature)
                assert standing.agreed(place).version == after.version
        finally:
            over.set()
        for done in looks:
            done.result(60)
    assert not (place.path / "agreement.next").exists() and read_bytes(place.agreement) == content
    assert not list(place.path.rglob(".*.tmp"))


def test_a_notice_is_believed_from_the_coordinator_alone(pair: tuple[Hospital, Hospital]) -> None:
    made, anna = pair
    with pytest.raises(ConfigWrong, match="has not ended"):
        ending.notice(made.place)
    ending.end(made.home, "north", who="ana", unfinished=True)
    notice = ending.notice(made.place)
    said = canonical.decode(notice.strip())
    live = read_bytes(anna.place.agreement)
    own = standing.own_keys(anna.home)
    forged = description.written(
        description.parsed(said["agreement"].encode()).model_copy(update={"coordinator_key": own.key})
    )
    false = [
        b"",
        b"[]",
        notice[:-9],
        canonical.encode(said | {"signature": "0" * 128}),
        canonical.encode(said | {"agreement": said["agreement"].replace("ended = true", "ended = false")}),
        canonical.encode(said | {
            "agreement": live.decode(), "signature": read_bytes(anna.place.signature).hex(),
        }),  # signed by the coordinator, and no end
        canonical.encode(said | {
            "agreement": forged.decode(), "signature": own.sign(description.PURPOSE + forged).hex(),
        }),
    ]  # fmt: skip
    for content in false:
        with pytest.raises(TrustRefused) as refused:
            ending.heard(anna.home, "north", content, who="ana")
        assert refused.value.hint
        assert not standing.agreed(anna.place).ended and len(private(anna)) == 3
    assert ending.heard(anna.home, "north", notice, who="ana").ended
    assert standing.agreed(anna.place).ended and standing.side(anna.place) == "site"
    assert len(ending.retire(anna.home, anna.place, who="ana")) == 3 and private(anna) == set()
    assert entries(anna.home)[-2:] == ["federate.ended", "federate.retire"]
    with pytest.raises(ConfigWrong):
        enrol.round_key(anna.place)
    ending.heard(anna.home, "north", notice, who="ana")  # again: nothing changes
    assert entries(anna.home)[-1] == "federate.retire"


def closed(federation: Federation) -> tuple[bytes, bytes]:
    """The last version of an agreement, signed."""
    after = federation.model_copy(update={"ended": True, "version": federation.version + 1})
    file = description.written(after)
    return file, key(0).sign(description.PURPOSE + file)


class Linked(World):
    """Sites that answer as their jobs do, and a link that may lose one of them."""

    lost: frozenset[str] = frozenset()
    closed_by: Any = None

    def answer(self, name: str, head: dict[str, Any], body: bytes) -> bytes | str:
        """The site's job, one frame."""
        if head.get("step") != farewell.STEP:
            return super().answer(name, head, body)
        if name in self.lost:
            return "flower-5"
        said = {key_: value.hex() if isinstance(value, bytes) else value for key_, value in head.items()}
        number, reason, answer = member._answered(self.seats[name], Frame(head={"head": said}, body=body))
        assert answer == b"" and number == head["round"]
        return reason


def run(world: World, closing: Any) -> int:
    """The coordinator, which closes the federation after its rounds."""
    from secure_world import _Link

    line = _Link(world=world, looks=400)
    return hub.run(
        world.course,
        line,
        lambda what, **facts: world.told.append({"what": what, **facts}),
        agreement=world.file,
        signature=world.signature,
        clock=lambda: world.clock,
        over=lambda: line.looks <= 0,
        newest=world._newest,
        closed=closing,
    )


def last(world: World) -> dict[str, Any]:
    """What the coordinator told of the end."""
    return next(one for one in reversed(world.told) if one["what"] == "ended")


def test_after_the_last_round_all_sites_that_are_there_hear_it(tmp_path: Path) -> None:
    world = Linked(tmp_path, settings={"count": 1})
    world.lost = frozenset({"s3"})
    assert run(world, lambda: closed(world.federation)) == 1
    assert last(world) == {"what": "ended", "heard": ["s1", "s2", "s4"], "unheard": ["s3"]}
    for name in world.names:
        held = description.parsed(read_bytes(world.seats[name].home / "agreement.toml"))
        assert held.ended == (name != "s3")


def test_an_end_in_the_middle_leaves_the_round_and_keeps_what_was_done(tmp_path: Path) -> None:
    world = Linked(tmp_path, settings={"count": 3})

    def ends(site: str, step: str, said: bytes | str) -> bytes | str:
        if step == "train" and checkpoint.read_record(world.course.home, 1, public(0)) is not None:
            world.newest = world.newest or closed(world.federation)
        return said

    world.answered = ends
    assert run(world, lambda: pytest.fail("it is closed already")) in (1, 2)
    assert last(world)["unheard"] == [] and world.record(3) is None and world.record(1) is not None


def test_no_site_ends_for_an_agreement_that_does_not_say_so_or_is_not_signed(tmp_path: Path) -> None:
    world = Linked(tmp_path)
    file, _ = closed(world.federation)
    for content, by in ((world.file, world.signature), (file, bytes(64)), (file, key(1).sign(file))):
        head = {"agreement": content.hex(), "signature": by.hex(), "round": 1, "step": farewell.STEP}
        assert member._answered(world.seats["s1"], Frame(head={"head": head}, body=b""))[1] == "agreement"


def test_a_sites_job_ends_with_its_answer(tmp_path: Path) -> None:
    world = Linked(tmp_path)
    file, signature = closed(world.federation)
    ours, theirs = socket.socketpair()
    found: list[bool] = []
    told: list[str] = []
    work = threading.Thread(
        target=lambda: found.append(
            member.serve(
                world.seats["s1"], Line(ours), lambda what, **facts: told.append(what), over=lambda: False
            )
        )
    )
    head = {"agreement": file.hex(), "signature": signature.hex(), "round": 2, "step": farewell.STEP}
    with ours, theirs:
        work.start()
        line = Line(theirs)
        line.send("asked", head=head)
        frame = line.receive(10)
        work.join(10)
    assert frame is not None and frame.head["reason"] == farewell.OVER and found == [True]
    assert told[-1] == "ended"
