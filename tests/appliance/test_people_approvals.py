"""Two people, or nothing: what somebody with the database alone, or one person alone, may try."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import people_support as site
import pytest

from appliance.core.db import transaction
from appliance.core.errors import ApplianceError, ConfigWrong, NeedsApproval, NotAllowed, NotFound
from appliance.core.home import Home
from appliance.security import canonical
from appliance.security.passphrase import Cost
from appliance.security.people import approvals, changes, guard, persons, rows, signing
from appliance.security.people.persons import utc_now
from appliance.security.people.roster import VOTE

EXPORT, TARGET = "bundle.export", "lora-0007"
CONTENT = {"to": "branch-north", "manifest": "ab" * 32}


@pytest.fixture
def st_anna(home: Home) -> Home:
    return site.settle_in(home)


def ask(home: Home, who: str = "ana") -> str:
    with pytest.raises(NeedsApproval) as needs:
        guard.require(home, site.actor(home, who), EXPORT, TARGET, content=CONTENT)
    return needs.value.request


def approved(home: Home) -> str:
    request = ask(home)
    assert approvals.vote(home, request, site.signer("olga"), yes=True).state == "approved"
    return request


def use(home: Home, content: dict[str, str] = CONTENT, target: str = TARGET, **more: Any) -> None:
    with transaction(home) as link:
        if more:
            approvals.use(link, home, EXPORT, target, content, who="ana", used_for="x", **more)
        else:
            guard.spend(link, home, "ana", EXPORT, target, content=content)


def refused(home: Home, **more: Any) -> bool:
    try:
        use(home, **more)
    except NeedsApproval:
        return True
    return False


def test_two_people_agree_and_it_is_done_once(st_anna: Home) -> None:
    request = ask(st_anna)
    assert refused(st_anna)
    shown = approvals.show(st_anna, request)
    assert (shown.state, shown.agreed, shown.request["content"]) == ("pending", ("ana",), CONTENT)
    assert ask(st_anna) == request  # asked again, it is the same request
    assert approvals.vote(st_anna, request, site.signer("olga"), yes=True).state == "approved"
    assert guard.require(st_anna, site.actor(st_anna, "ana"), EXPORT, TARGET, content=CONTENT) == request
    use(st_anna)
    assert approvals.show(st_anna, request).state == "used"
    assert refused(st_anna)
    assert [site.lines(st_anna, f"approval.{what}") for what in ("ask", "yes", "no", "use")] == [1, 2, 0, 1]


def test_the_error_says_who_must_type_what(st_anna: Home) -> None:
    with pytest.raises(NeedsApproval) as needs:
        guard.require(st_anna, site.actor(st_anna, "ana"), EXPORT, TARGET, content=CONTENT)
    error = needs.value
    assert (error.exit_code, error.code) == (13, "needs-approval")
    assert f"cloister approve yes {error.request}" in error.hint and "privacy-officer" in error.hint.lower()


def test_exactly_what_was_shown_may_be_done(st_anna: Home) -> None:
    approved(st_anna)
    assert refused(st_anna, content=CONTENT | {"to": "elsewhere"})
    assert refused(st_anna, content={})
    assert refused(st_anna, target="lora-0008")
    use(st_anna)


def test_one_person_is_not_two(st_anna: Home) -> None:
    request = ask(st_anna, "olga")
    with pytest.raises(ConfigWrong, match="agreed to this already"):
        approvals.vote(st_anna, request, site.signer("olga"), yes=True)
    assert refused(st_anna)


def test_two_operators_are_not_enough(st_anna: Home) -> None:
    add(st_anna, "otto", "operator")
    request = ask(st_anna)
    assert approvals.vote(st_anna, request, site.signer("otto"), yes=True).state == "pending"
    assert refused(st_anna)


@pytest.mark.parametrize("who", ["sam", "aude"])
def test_who_may_not_decide_cannot_sign(st_anna: Home, who: str) -> None:
    request = ask(st_anna)
    with pytest.raises(NotAllowed):
        approvals.vote(st_anna, request, site.signer(who), yes=True)
    with pytest.raises(NotAllowed):
        guard.require(st_anna, site.actor(st_anna, who), EXPORT, TARGET, content=CONTENT)
    # Nor by writing a true signature of theirs into the table.
    write_vote(st_anna, request, who, site.SEEDS[who], role=site.ROLE_OF[who])
    assert approvals.show(st_anna, request).state == "pending" and refused(st_anna)


def test_a_no_ends_it(st_anna: Home) -> None:
    request = approved(st_anna)
    assert approvals.vote(st_anna, request, site.signer("olga"), yes=False).state == "refused"
    assert refused(st_anna)
    with pytest.raises(ConfigWrong):
        approvals.vote(st_anna, request, site.signer("ana"), yes=True)


def test_it_expires_after_a_day_and_a_clock_set_back_does_not_revive_it(st_anna: Home) -> None:
    request = approved(st_anna)
    later = utc_now() + timedelta(hours=24, minutes=1)
    assert approvals.show(st_anna, request, now=later - timedelta(minutes=2)).state == "approved"
    assert approvals.show(st_anna, request, now=later).state == "expired"
    assert refused(st_anna, now=later)
    entry = {"at": later.isoformat(timespec="milliseconds"), "who": "x", "what": "y", "target": "z"}
    site.sql(st_anna, "INSERT INTO audit (entry, leaf) VALUES (?, '')", json.dumps(entry))
    assert refused(st_anna, now=utc_now())


# --- whoever can write rows


def write_vote(home: Home, request: str, name: str, seed: bytes, role: str, person: str = "") -> None:
    """A vote in the table, signed with `seed`."""
    asked = approvals.show(home, request).request
    said = {
        "v": 1,
        "request": signing.digest(asked),
        "vote": "yes",
        "person": name,
        "role": role,
        "at": rows.text(utc_now()),
    }
    signature = signing.sign(signing.SeedSigner(person=name, seed=seed), VOTE, said)
    text = canonical.encode(said).decode()
    site.sql(
        home, "INSERT OR REPLACE INTO approvals VALUES (?, ?, ?, ?)", request, person or name, text, signature
    )


def test_a_signature_with_another_key_is_none(st_anna: Home) -> None:
    request = ask(st_anna)
    write_vote(st_anna, request, "olga", site.SEEDS["eve"], "privacy-officer")
    assert refused(st_anna)
    write_vote(st_anna, request, "olga", site.SEEDS["ana"], "privacy-officer")
    assert refused(st_anna)


def test_a_signature_counts_for_the_role_it_was_given_in(st_anna: Home) -> None:
    request = ask(st_anna)
    write_vote(st_anna, request, "olga", site.SEEDS["olga"], "operator")
    assert refused(st_anna)
    write_vote(st_anna, request, "olga", site.SEEDS["olga"], "privacy-officer")
    use(st_anna)


@pytest.mark.parametrize("who", ["sam", "aude"])
def test_an_officer_and_one_whose_role_does_not_count_are_not_two(st_anna: Home, who: str) -> None:
    request = ask(st_anna, "olga")
    write_vote(st_anna, request, who, site.SEEDS[who], role=site.ROLE_OF[who])
    assert approvals.show(st_anna, request).agreed == ("olga",) and refused(st_anna)


def test_one_person_with_two_keys_or_under_two_names_in_the_table_is_one(st_anna: Home) -> None:
    request = ask(st_anna, "olga")
    write_vote(st_anna, request, "olga", site.SEEDS["olga"], "privacy-officer", person="somebody")
    write_vote(st_anna, request, "olga", site.SEEDS["eve"], "privacy-officer", person="else")
    write_vote(st_anna, request, "eve", site.SEEDS["eve"], "operator")
    assert refused(st_anna)


def test_a_copied_signature_is_no_vote_for_another_request(st_anna: Home) -> None:
    old = approved(st_anna)
    use(st_anna)
    new = ask(st_anna)
    assert new != old
    site.sql(
        st_anna,
        "INSERT INTO approvals SELECT ?, person, vote, signature FROM approvals WHERE person = 'olga'",
        new,
    )
    assert refused(st_anna)


def test_a_vote_under_another_name_is_not_that_persons(st_anna: Home) -> None:
    request = ask(st_anna)
    said = site.column(st_anna, "SELECT vote FROM approvals WHERE request = ?", request)[0]
    forged = str(said).replace('"ana"', '"olga"').replace('"operator"', '"privacy-officer"')
    site.sql(
        st_anna,
        "INSERT INTO approvals SELECT request, 'olga', ?, signature FROM approvals WHERE request = ?",
        forged,
        request,
    )
    assert refused(st_anna)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("content", {"to": "elsewhere", "manifest": "ab" * 32}),
        ("digest", "0" * 64),
        ("expires", "2099-01-01T00:00:00.000000+00:00"),
        ("target", "lora-0008"),
        ("action", "model.remove"),
        ("after", 10**6),
    ],
)
def test_a_changed_request_has_no_votes(st_anna: Home, part: str, value: object) -> None:
    request = approved(st_anna)
    held = approvals.show(st_anna, request).request | {part: value}
    if part in ("content", "target", "action"):
        held["digest"] = rows.digest_for(held["action"], held["target"], held["content"])
    site.sql(
        st_anna,
        "UPDATE requests SET request = ? WHERE id = ?",
        canonical.encode(held).decode(),
        request,
    )
    with transaction(st_anna) as link, pytest.raises(NeedsApproval):
        approvals.use(link, st_anna, held["action"], held["target"], held["content"], who="ana", used_for="x")
    assert refused(st_anna)


def test_a_request_whose_digest_is_not_of_what_is_shown_is_none(st_anna: Home) -> None:
    """Else an approver could be shown one thing and sign another."""
    request = ask(st_anna)
    held = approvals.show(st_anna, request).request
    held["digest"] = rows.digest_for(EXPORT, TARGET, CONTENT | {"to": "elsewhere"})
    text = canonical.encode(held).decode()
    site.sql(st_anna, "UPDATE requests SET request = ? WHERE id = ?", text, request)
    with pytest.raises(NotFound):
        approvals.show(st_anna, request)


def test_a_used_approval_is_not_made_unused_by_its_row(st_anna: Home) -> None:
    request = approved(st_anna)
    use(st_anna)
    site.sql(st_anna, "UPDATE requests SET used = NULL, used_for = NULL WHERE id = ?", request)
    assert approvals.show(st_anna, request).state == "used"
    assert refused(st_anna)
    site.sql(st_anna, "UPDATE requests SET used = 'then' WHERE id = ?", request)
    site.sql(st_anna, "DELETE FROM audit WHERE entry LIKE '%approval.use%'")  # nor by the log alone
    assert approvals.show(st_anna, request).state == "used"


def test_a_request_written_again_after_its_use_is_used(st_anna: Home) -> None:
    request = approved(st_anna)
    use(st_anna)
    held = str(site.column(st_anna, "SELECT request FROM requests WHERE id = ?", request)[0])
    site.sql(st_anna, "DELETE FROM requests WHERE id = ?", request)
    site.sql(st_anna, "INSERT INTO requests (id, request) VALUES (?, ?)", request, held)
    assert refused(st_anna)


def test_a_vote_ends_with_the_role_and_with_the_person(st_anna: Home) -> None:
    add(st_anna, "otto", "privacy-officer")
    request = ask(st_anna)
    assert approvals.vote(st_anna, request, site.signer("otto"), yes=True).state == "approved"
    both(st_anna, changes.propose_role(st_anna, site.signer("sam"), "otto", "operator").id)
    assert approvals.show(st_anna, request).state == "pending"
    assert refused(st_anna)
    both(st_anna, changes.propose_role(st_anna, site.signer("sam"), "otto", "privacy-officer").id)
    assert refused(st_anna)  # an officer again, but not since the vote
    assert approvals.vote(st_anna, request, site.signer("otto"), yes=True).state == "approved"
    both(st_anna, changes.propose_removal(st_anna, site.signer("sam"), "otto").id)
    assert refused(st_anna)


def test_a_used_approval_bears_its_job_out_while_its_people_are_here(st_anna: Home) -> None:
    approved(st_anna)
    with transaction(st_anna) as link:
        approvals.use(link, st_anna, EXPORT, TARGET, CONTENT, who="ana", used_for="job 0001")

    def holds(job: str, content: dict[str, str]) -> bool:
        with transaction(st_anna) as link:
            return approvals.used_by(link, st_anna, EXPORT, TARGET, content, f"job {job}")

    assert holds("0001", CONTENT)
    assert not holds("0002", CONTENT) and not holds("0001", {})
    site.sql(st_anna, "DELETE FROM approvals WHERE person = 'olga'")
    assert not holds("0001", CONTENT)


# --- changes of people are approved in the same way


def add(home: Home, name: str, role: str) -> None:
    both(home, changes.propose_person(home, site.signer("sam"), site.new(name, role), cost=Cost()).id)


def both(home: Home, request: str) -> None:
    assert approvals.vote(home, request, site.signer("olga"), yes=True).state == "used"


def test_a_change_asked_for_an_older_list_is_not_made(st_anna: Home) -> None:
    stale = changes.propose_role(st_anna, site.signer("sam"), "ana", "auditor").id
    add(st_anna, "otto", "operator")
    with pytest.raises(ConfigWrong, match="has changed since"):
        approvals.vote(st_anna, stale, site.signer("olga"), yes=True)
    assert persons.person(st_anna, "ana").role == "operator"


def test_a_new_list_put_into_a_request_afterwards_is_not_entered(st_anna: Home) -> None:
    honest = changes.propose_person(st_anna, site.signer("sam"), site.new("otto", "operator"), cost=Cost())
    evil = changes.propose_person(st_anna, site.signer("sam"), site.new("eve", "operator"), cost=Cost())
    site.sql(
        st_anna,
        "UPDATE requests SET payload = (SELECT payload FROM requests WHERE id = ?) WHERE id = ?",
        evil.id,
        honest.id,
    )
    with pytest.raises(ApplianceError, match="not what was asked for"):
        approvals.vote(st_anna, honest.id, site.signer("olga"), yes=True)
    roster = persons.load(st_anna)
    assert roster is not None and {one.name for one in roster.people} == set(site.ROLE_OF)


def test_nobody_alone_makes_a_second_person(st_anna: Home) -> None:
    asked = changes.propose_person(
        st_anna, site.signer("sam"), site.new("eve", "privacy-officer"), cost=Cost()
    )
    assert asked.state == "pending" and asked.agreed == ("sam",)
    with pytest.raises(NotAllowed):
        approvals.vote(st_anna, asked.id, site.signer("eve"), yes=True)


def test_the_home_of_one_person_asks_nobody(home: Home, tmp_path: Path) -> None:
    one = guard.identify(home, "mira")
    assert guard.require(home, one, EXPORT, TARGET, content=CONTENT) is None
    use(home)
    with pytest.raises(ConfigWrong):
        approvals.pending(home)
