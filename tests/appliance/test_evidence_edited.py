"""A report does not say "supports" of rows that were edited: they are held against the audit log."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import evidence_support as evidence
import people_support as site
import pytest
from evidence_support import ask, outcome
from test_guards_below import agree

from appliance.core.db import transaction
from appliance.core.files import sha256_file
from appliance.core.home import Home
from appliance.ops.evidence import probes_log, report, sign
from appliance.security import audit, keys
from appliance.security.log import witness
from appliance.security.people import breakglass, guard

NO, YES = "does not support", "supports"
REASON = "the night shift has no operator"


@pytest.fixture
def st_anna(home: Home) -> Home:
    return site.settle_in(home)


def test_an_emergency_whose_row_was_taken_out(st_anna: Home) -> None:
    breakglass.start(st_anna, site.signer("aude"), REASON)
    assert outcome(st_anna, "emergency") == YES
    site.sql(st_anna, "DELETE FROM emergencies")
    assert "nothing else is left" in ask(st_anna, "emergency").text


def test_a_use_that_two_have_not_signed(st_anna: Home) -> None:
    agree(st_anna, "bundle.export", "lora", {"to": "north"}, by="ana")
    with transaction(st_anna) as link:
        guard.spend(link, st_anna, "ana", "bundle.export", "lora", content={"to": "north"})
    assert outcome(st_anna, "two people") == YES
    site.sql(st_anna, "DELETE FROM approvals WHERE person = 'olga'")
    assert "without the signatures of two" in ask(st_anna, "two people").text


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE api_keys SET models = '[]'",
        "UPDATE api_keys SET collections = '[\"staff\"]'",
        "UPDATE api_keys SET expires = replace(expires, '+00:00', '+00:01')",
        "UPDATE api_keys SET id = 'zzzzzzzz'",
    ],
)
def test_a_key_that_nobody_made_so(home: Home, edit: str) -> None:
    keys.new_key(home, "ward", "mira", models=["a"], expires=evidence.now() + timedelta(days=30))
    assert outcome(home, "api keys") == YES
    site.sql(home, edit)
    assert "Not as the audit log says" in ask(home, "api keys").text


def test_a_key_that_was_revoked_by_the_log(home: Home) -> None:
    name, _ = keys.new_key(home, "ward", "mira", expires=evidence.now() + timedelta(days=30))
    keys.revoke(home, name, "mira")
    site.sql(home, "UPDATE api_keys SET revoked = NULL")
    assert outcome(home, "api keys") == NO


def test_a_model_that_was_swapped_together_with_its_row(home: Home) -> None:
    made = evidence.add_file(home, "x")
    assert outcome(home, "models") == YES
    made.path.chmod(0o600)
    made.path.write_bytes(b"other weights")
    site.sql(home, "UPDATE models SET sha256 = ? WHERE name = 'x'", sha256_file(made.path))
    assert "By the audit log another file" in ask(home, "models").text


def test_a_report_that_passes_only_by_its_row(home: Home) -> None:
    evidence.add_data(home)
    evidence.add_private(home)
    evidence.add_report(home, "lora-1", passed=False)
    site.sql(home, "UPDATE reports SET passed = 1")
    assert outcome(home, "evaluation") == NO
    evidence.add_report(home, "lora-1", passed=True, created="2026-11-02")
    assert outcome(home, "evaluation") == YES
    site.sql(home, "UPDATE reports SET job = 'bundle-123456789012' WHERE job = '2026-11-02'")
    assert outcome(home, "evaluation") == NO


def test_a_budget_that_was_raised_or_refunded_by_hand(home: Home) -> None:
    evidence.add_data(home)
    evidence.add_private(home)
    assert outcome(home, "epsilon") == YES
    site.sql(home, "UPDATE budgets SET epsilon_limit = 100")
    assert "not the one that the audit log says" in ask(home, "epsilon").text
    site.sql(home, "UPDATE budgets SET epsilon_limit = 8")
    site.sql(home, "UPDATE ledger SET steps = 1")
    assert "lost charges" in ask(home, "epsilon").text
    site.sql(home, "UPDATE ledger SET steps = 40")
    assert outcome(home, "epsilon") == YES
    site.sql(
        home, "INSERT INTO ledger SELECT 99, dataset, job, created, 50, sample_rate, 1, facts, 1 FROM ledger"
    )
    assert "does not tell" in ask(home, "epsilon").text
    site.sql(home, "DELETE FROM ledger WHERE seq = 99")
    site.sql(home, "DELETE FROM budgets")
    assert "is gone" in ask(home, "epsilon").text


def test_a_guard_of_the_log_that_guards_nothing(home: Home) -> None:
    evidence.add_file(home, "x")
    assert outcome(home, "retention") == YES
    with transaction(home) as link:
        link.execute("DROP TRIGGER audit_no_DELETE")
        link.execute("CREATE TRIGGER audit_no_DELETE BEFORE DELETE ON audit WHEN 0 BEGIN SELECT 1; END")
    assert "audit_no_DELETE" in ask(home, "retention").text


def test_a_review_from_the_future_is_none(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = (evidence.now() + timedelta(days=3650)).isoformat(timespec="milliseconds")
    monkeypatch.setattr(audit, "now", lambda: ahead)
    witness.make(home, evidence.KEY, who="mira", clock=evidence.now)
    assert probes_log.review(evidence.look(home)).outcome == NO


def test_a_report_is_written_after_the_keys_were_rotated(home: Home, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from appliance.security.log.checkpoint import Signer, verifier

    witness.make(home, evidence.KEY, who="mira", clock=evidence.now)
    new = Signer(name=evidence.KEY.name, key=Ed25519PrivateKey.from_private_bytes(b"2" * 32))
    examined = report.examine(evidence.look(home), "other", probes=dict.fromkeys(report.PROBES, _nothing))
    given = {"who": "mira", "version": "1", "clock": evidence.now, "older": [verifier(evidence.KEY)]}
    _, path = sign.write(home, tmp_path, examined, new, **given)  # type: ignore[arg-type]
    assert json.loads(path.read_bytes())["report"]["key"] == new.public.hex()
    assert sign.check(path, new.public)["who"] == "mira"


def _nothing(look: object) -> object:
    from appliance.ops.evidence.shape import absent

    return absent("nothing")
