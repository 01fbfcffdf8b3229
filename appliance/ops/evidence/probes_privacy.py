"""Probes of differential privacy: what each trained model claims, held against ledger, code and run record.

One for each question of NIST SP 800-226, so that no line of it stays blank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite, sqrt
from typing import Any

from appliance.data import store
from appliance.models import registry
from appliance.models.registry import Model
from appliance.ops.evidence.shape import Found, Look, absent, count, lacks, some, supports, version
from appliance.privacy import ledger, logged, uncharged
from appliance.privacy.accountant import ACCOUNTANT

_DRAWN = 20_000
_SIGMA = 50.0
_WIDE = 6.0  # standard errors: a sound sampler is refused once in 10**9


def epsilon(look: Look) -> Found:
    """Epsilon and delta of each dataset's whole history and of each model, counted anew."""
    if lost := logged.lost(look.home):
        return lacks(f"The ledger has lost charges that the audit log tells of: {some(lost)}.")
    if unknown := logged.unknown(look.home):
        return lacks(f"The ledger has charges of which the audit log does not tell: {some(unknown)}.")
    if changed := logged.changed(look.home):
        return lacks(f"The budget is not the one that the audit log says was set: {some(changed)}.")
    budgets, private = ledger.budgets(look.home), _private(look)
    spent = {one.dataset: one.spent() for one in budgets}
    if not private and not any(spent.values()):
        return _nothing(look)
    wrong = [one.dataset for one in budgets if not spent[one.dataset] <= one.epsilon_limit * (1 + 1e-9)]
    if wrong:
        return lacks(f"More was spent than the budget allows: {some(wrong)}.")
    for model in private:
        stated = float(model.facts["privacy"]["epsilon"])
        counted = _counted(look, model)
        if not isfinite(stated) or stated < counted * (1 - 1e-3):
            return lacks(f"{model.name} states epsilon {stated:.3g}; the ledger counts {counted:.3g}.")
    told = [_short(model) for model in private]
    sets = [
        f"{one.dataset} {spent[one.dataset]:.3g} of {one.epsilon_limit:g} at delta {one.delta:.2g}"
        for one in budgets
    ]
    return supports(
        f"Counted anew from the ledger: {some(told) or 'no finished model'}. Spent in all: {some(sets)}.",
        models={model.name: f"{float(model.facts['privacy']['epsilon']):.6g}" for model in private},
        datasets={name: f"{value:.6g}" for name, value in spent.items()},
    )


def unit(look: Look) -> Found:
    """Whose privacy is protected."""
    return _each(look, "unit", lambda said, model: f"one {said}" if said == _unit(look, model) else None)


def definition(look: Look) -> Found:
    """The definition and what neighbours are."""
    found = _each(look, "adjacency", lambda said, _: said if said.startswith("add or remove one") else None)
    return _before(found, "(epsilon, delta)-differential privacy. ")


def accountant(look: Look) -> Found:
    """Which accountant, and that it is the one installed."""
    found = _each(look, "accountant", lambda said, _: said if said == ACCOUNTANT else None)
    return _after(found, f" cloister {version()} counts with it now.")


def mechanism(look: Look) -> Found:
    """What noise is added to."""
    return _each(look, "mechanism", lambda said, _: said if "CSPRNG" in said and "clipped" in said else None)


def clipping(look: Look) -> Found:
    """The clipping bound of each run."""
    return _each(look, "max_grad_norm", lambda said, _: f"norm {said:g}" if 0 < said < 1e6 else None)


def sampling(look: Look) -> Found:
    """Whether batches were drawn as the accountant assumes, by what each run wrote down step by step."""
    private = _private(look)
    if not private:
        return _nothing(look)
    from appliance.ops.privacy_audit_mechanism import claim_of, record_findings

    told, wrong, unknown = [], [], []
    for model in private:
        claim = claim_of(model)
        found = record_findings(claim) if claim else []
        bad = [one.name for one in found if one.verdict == "FAIL"]
        if bad:
            wrong.append(f"{model.name} ({', '.join(bad)})")
        elif not found or any(one.verdict != "PASS" for one in found):
            unknown.append(model.name)
        else:
            told.append(f"{model.name}: {model.facts['privacy']['sampling']}")
    if wrong or unknown:
        return lacks(f"The run's own record does not bear it out: {some([*wrong, *unknown])}.")
    return supports(
        f"{some(told, 3)}. Batch sizes and noise of every step in the run's own record are what this sampling"
        " gives.",
        models=len(told),
    )


def noise(look: Look) -> Found:
    """The noise source drawn from now: two keys, two streams; integers of the right size."""
    import numpy as np

    from appliance.privacy.noise import Keystream, discrete_gaussian

    one, other = Keystream(), Keystream()
    drawn = discrete_gaussian(_DRAWN, _SIGMA, one)
    again = discrete_gaussian(_DRAWN, _SIGMA, other)
    mean, size = float(drawn.mean()), float(drawn.std())
    apart = not np.array_equal(drawn, again)
    sound = abs(mean) < _WIDE * _SIGMA / sqrt(_DRAWN) and abs(size / _SIGMA - 1) < _WIDE / sqrt(2 * _DRAWN)
    if not (apart and sound and np.issubdtype(drawn.dtype, np.integer)):
        return lacks(f"{_DRAWN:,} draws at size {_SIGMA:g} had size {size:.2f} and mean {mean:.2f}.")
    return supports(
        "Noise comes from AES-256-CTR under a fresh key of the operating system, as integers of a discrete"
        " Gaussian on a lattice, which closes floating-point attacks on the noise."
        f" {_DRAWN:,} drawn now: of the right size, and no two starts alike.",
        drawn=_DRAWN,
        size=f"{size:.3f}",
        expected=f"{_SIGMA:g}",
    )


def composition(look: Look) -> Found:
    """Every run on a data set counted together, and nothing learnt beside the count."""
    budgets, trained = ledger.budgets(look.home), _trained(look)
    if not budgets and not trained:
        return _nothing(look)
    names = sorted(
        {one.dataset for one in budgets} | {(one.dataset or "").partition("@")[0] for one in trained}
    )
    beside = [
        f"{name} (job {', '.join(jobs[:3])})"
        for name in names
        if (jobs := uncharged.jobs_of(look.home, name, uncharged.OPEN)) and not _harmless(look, name)
    ]
    if beside:
        return lacks(f"Learnt without privacy, so outside of every count: {some(beside)}.")
    runs = {
        one.dataset: len({event["job"] for event in ledger.events(look.home, one.dataset)}) for one in budgets
    }
    if not any(runs.values()):
        return _nothing(look)
    told = [f"{name}: {count(number, 'run')}" for name, number in runs.items()]
    return supports(
        "All runs and trials on all versions of a data set draw on one budget, and are composed by their"
        f" privacy loss distributions ({some(told)}). No run on records of people is beside them.",
        runs=runs,
    )


def audited(look: Look) -> Found:
    """The newest privacy audit of each private model and of its files."""
    private = _private(look)
    if not private:
        return _nothing(look)
    from appliance.ops.privacy_audit import audits

    found = {model.name: audits(look.home, model.name)[:1] for model in private}
    without = [name for name, told in found.items() if not told]
    failed = [
        f"{name} ({told[0]['verdict']})"
        for name, told in found.items()
        if told and told[0]["verdict"] != "PASS"
    ]
    if without or failed:
        parts = [f"not audited: {some(without)}"] if without else []
        parts += [f"did not pass: {some(failed)}"] if failed else []
        return lacks(f"Privacy audit, {'; '.join(parts)} (cloister audit-privacy MODEL).")
    return supports(
        f"The newest privacy audit of {some(sorted(found))} passed: these attacks, at these sizes, found"
        " nothing. Not detected is not private; the noise that was counted protects people.",
        models=len(found),
    )


def open_runs(look: Look) -> Found:
    """Models that were trained on people's records without privacy."""
    trained = _trained(look)
    if not trained:
        return _nothing(look)
    bare = [one.name for one in trained if not one.facts.get("privacy") and not one.facts.get("synthetic")]
    if bare:
        return lacks(f"Trained without differential privacy on records that are not made up: {some(bare)}.")
    return supports(
        f"{count(len(trained), 'model')} trained here: each under differential privacy, or on made-up"
        " records.",
        trained=len(trained),
        private=len(_private(look)),
    )


def _each(look: Look, name: str, tell: Callable[[Any, Model], str | None]) -> Found:
    """What each private claim says under `name`; `tell` gives it in words, None if it does not hold."""
    private = _private(look)
    if not private:
        return _nothing(look)
    told: dict[str, list[str]] = {}
    for model in private:
        said = model.facts["privacy"].get(name)
        words = None if said is None else tell(said, model)
        if words is None:
            return lacks(f"The claim of {model.name} does not say this, or not what the installed code does.")
        told.setdefault(words, []).append(model.name)
    lines = [f"{some(names, 3)}: {words}" for words, names in told.items()]
    return supports(
        f"{'; '.join(lines[:3])}.",
        models={model.name: str(model.facts["privacy"][name]) for model in private},
    )


def _before(found: Found, text: str) -> Found:
    return supports(text + found.text, **_of(found.figures)) if found.outcome == "supports" else found


def _after(found: Found, text: str) -> Found:
    return supports(found.text + text, **_of(found.figures)) if found.outcome == "supports" else found


def _of(figures: Mapping[str, Any]) -> dict[str, Any]:
    return dict(figures)


def _nothing(look: Look) -> Found:
    if _trained(look):
        return absent("No model here was trained under differential privacy.")
    return absent("No model was trained here.")


def _trained(look: Look) -> list[Model]:
    return [model for model in registry.models(look.home) if model.trained and model.dataset]


def _private(look: Look) -> list[Model]:
    return [model for model in _trained(look) if model.facts.get("privacy")]


def _counted(look: Look, model: Model) -> float:
    from appliance.privacy.accountant import epsilon as counted

    privacy = model.facts["privacy"]
    history = ledger.charged(look.home, (model.dataset or "").partition("@")[0], model.job)
    return counted(history, float(privacy["delta"])) if history else float("inf")


def _short(model: Model) -> str:
    privacy = model.facts["privacy"]
    return f"{model.name} epsilon {float(privacy['epsilon']):.3g} at delta {float(privacy['delta']):.2g}"


def _unit(look: Look, model: Model) -> str | None:
    """The unit that the data set of a model declares."""
    named = model.dataset or ""
    return next((one.unit for one in _ever(look) if one.title == named), None)


def _harmless(look: Look, name: str) -> bool:
    """Whether every version of a data set is made up."""
    known = [one.synthetic for one in _ever(look) if one.name == name]
    return bool(known) and all(known)


def _ever(look: Look) -> list[store.Dataset]:
    """Every data set version, also those whose records were removed."""
    return [*store.datasets(look.home), *store.removed(look.home)]


PROBES = {
    "epsilon": epsilon,
    "unit": unit,
    "definition": definition,
    "accountant": accountant,
    "mechanism": mechanism,
    "clipping": clipping,
    "sampling": sampling,
    "noise": noise,
    "composition": composition,
    "privacy audit": audited,
    "open runs": open_runs,
}
