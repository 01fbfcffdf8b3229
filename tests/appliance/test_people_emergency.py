"""Emergency access: an operator for some minutes, once, in two audit lines, red until an officer looked."""

from __future__ import annotations

from datetime import timedelta

import people_support as site
import pytest

from appliance.core.errors import ConfigWrong, NeedsApproval, NotAllowed, NotFound
from appliance.core.home import Home
from appliance.security import canonical
from appliance.security.people import breakglass, guard, persons
from appliance.security.people.persons import utc_now

REASON = "the night shift has no operator and the endpoint is down"


@pytest.fixture
def st_anna(home: Home) -> Home:
    return site.settle_in(home)


def test_an_auditor_acts_as_operator_for_its_minutes(st_anna: Home) -> None:
    aude = site.actor(st_anna, "aude")
    with pytest.raises(NotAllowed):
        guard.allow(st_anna, aude, "serve.start")
    case = breakglass.start(st_anna, site.signer("aude"), REASON, minutes=15)
    guard.allow(st_anna, aude, "serve.start")
    later = utc_now() + timedelta(minutes=14)
    assert guard.why_not(st_anna, aude, "serve.start", now=later) is None
    assert guard.why_not(st_anna, aude, "serve.start", now=later + timedelta(minutes=2)) is not None
    assert guard.why_not(st_anna, aude, "key.new") is not None  # no more than an operator
    assert guard.why_not(st_anna, site.actor(st_anna, "sam"), "serve.start") is not None  # nobody else
    assert (case.state, case.reason) == ("running", REASON)


def test_it_is_no_second_person(st_anna: Home) -> None:
    breakglass.start(st_anna, site.signer("sam"), REASON)
    with pytest.raises(NeedsApproval) as needs:
        guard.require(st_anna, site.actor(st_anna, "sam"), "bundle.export", "lora-1")
    from appliance.security.people import approvals

    assert approvals.show(st_anna, needs.value.request).agreed == ()
    assert approvals.vote(st_anna, needs.value.request, site.signer("olga"), yes=True).state == "pending"
    with pytest.raises(NotAllowed):
        approvals.vote(st_anna, needs.value.request, site.signer("sam"), yes=True)


def test_start_and_end_are_lines_of_their_own_and_it_stays_red(st_anna: Home) -> None:
    case = breakglass.start(st_anna, site.signer("aude"), REASON, minutes=15)
    assert site.lines(st_anna, "emergency.start") == 1
    over = utc_now() + timedelta(minutes=16)
    for _ in range(2):
        breakglass.settle(st_anna, now=over)
    assert site.lines(st_anna, "emergency.end") == 1
    assert [one.state for one in breakglass.open_cases(st_anna)] == ["over"]
    with pytest.raises(NotAllowed, match="not reviewed yet"):
        breakglass.start(st_anna, site.signer("aude"), REASON)
    for who in ("aude", "sam", "ana"):
        with pytest.raises(NotAllowed):
            breakglass.review(st_anna, site.signer(who), case.id)
    assert breakglass.review(st_anna, site.signer("olga"), case.id).reviewed_by == "olga"
    assert breakglass.open_cases(st_anna) == [] and site.lines(st_anna, "emergency.review") == 1
    breakglass.start(st_anna, site.signer("aude"), REASON)


def test_it_ends_by_hand(st_anna: Home) -> None:
    breakglass.start(st_anna, site.signer("aude"), REASON)
    breakglass.end(st_anna, "aude")
    assert guard.why_not(st_anna, site.actor(st_anna, "aude"), "serve.start") is not None
    with pytest.raises(NotFound):
        breakglass.end(st_anna, "aude")


def test_an_officer_does_not_review_her_own_and_nobody_one_that_runs(st_anna: Home) -> None:
    case = breakglass.start(st_anna, site.signer("olga"), REASON)
    with pytest.raises(NotAllowed, match="cannot review"):
        breakglass.review(st_anna, site.signer("olga"), case.id)
    other = breakglass.start(st_anna, site.signer("sam"), REASON)
    with pytest.raises(ConfigWrong, match="is running"):
        breakglass.review(st_anna, site.signer("olga"), other.id)


@pytest.mark.parametrize(("reason", "minutes"), [("", 30), ("short", 30), (REASON, 0), (REASON, 61)])
def test_it_needs_a_reason_and_has_an_end(st_anna: Home, reason: str, minutes: int) -> None:
    with pytest.raises(ConfigWrong):
        breakglass.start(st_anna, site.signer("aude"), reason, minutes=minutes)


def test_a_row_written_by_hand_opens_nothing_and_clears_nothing(st_anna: Home) -> None:
    aude = site.actor(st_anna, "aude")
    case = breakglass.start(st_anna, site.signer("aude"), REASON, minutes=1)
    held = canonical.decode(str(site.column(st_anna, "SELECT statement FROM emergencies")[0]).encode())
    longer = canonical.encode(held | {"until": "2099-01-01T00:00:00.000000+00:00"}).decode()
    site.sql(st_anna, "UPDATE emergencies SET statement = ?", longer)
    assert guard.why_not(st_anna, aude, "serve.start") is not None
    said = canonical.encode({"v": 1, "id": case.id, "person": "olga", "at": "x"}).decode()
    site.sql(st_anna, "UPDATE emergencies SET review = ?, review_signature = ?", said, "00" * 64)
    assert [one.state for one in breakglass.open_cases(st_anna)] == ["over"]
    other = canonical.encode(held | {"person": "sam"}).decode()
    site.sql(st_anna, "UPDATE emergencies SET statement = ?", other)
    assert guard.why_not(st_anna, site.actor(st_anna, "sam"), "serve.start") is not None


def test_one_persons_site_has_no_emergencies(home: Home) -> None:
    assert breakglass.cases(home) == []
    with pytest.raises(NotFound):
        breakglass.start(home, site.signer("aude"), REASON)
    assert persons.load(home) is None
