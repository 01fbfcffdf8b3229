"""What a search is to do, read from its spec and checked; and its plan, shown before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from appliance.core.errors import ConfigWrong, PrivacyRefused
from appliance.core.home import Home
from appliance.privacy import ledger
from appliance.privacy.accountant import Steps, noise_for
from appliance.train.plan import PRIVATE_STEPS
from appliance.train.preview import preview
from appliance.train.settings import Settings, settings_from
from appliance.train.space import Space, count, largest, read_space, spread, start

_MOST_TRIALS = 200


@dataclass(frozen=True, kw_only=True)
class Search:
    """`settings` are those of a trial, but for what `space` replaces."""

    settings: Settings
    space: Space
    trials: int
    public: bool

    @property
    def charged(self) -> bool:
        """Whether trials are paid from the dataset's budget."""
        return self.settings.private and not self.public

    @property
    def steps(self) -> int:
        """Steps of one trial, where all have the same."""
        return self.settings.steps or PRIVATE_STEPS

    @property
    def whole(self) -> Settings:
        """One run as long as all trials: what a charged search costs."""
        return replace(self.settings, steps=self.trials * self.steps)

    @property
    def first(self) -> dict[str, Any] | None:
        """The settings as they are, tried first where the space holds them."""
        return start(self.settings, self.space)

    def told(self) -> dict[str, Any]:
        """For JSON and screens."""
        return {"trials": self.trials, "over": spread(self.space), "public": self.public}


def search_from(spec: Mapping[str, Any]) -> Search:
    """The search that `spec` describes (see train/search.py).

    Raises:
        ConfigWrong: what is asked for cannot be searched.
    """
    settings = settings_from(dict(spec.get("settings", {})))
    trials, public = spec.get("trials", 6), bool(spec.get("public"))
    if type(trials) is not int or not 2 <= trials <= _MOST_TRIALS:
        raise ConfigWrong(f"A search has 2 to {_MOST_TRIALS} trials, not {trials}.", "Use --trials 6.")
    if settings.processes > 1:
        raise ConfigWrong("A search runs on one process.", "Leave out --processes.")
    space = read_space(spec.get("over", ""), settings, charged=settings.private and not public)
    most = count(space)
    if most is not None and most < trials:
        raise ConfigWrong(f"There are only {most} settings to try.", f"Use --trials {most}, or search more.")
    return Search(settings=settings, space=space, trials=trials, public=public)


def check_public(home: Home, dataset: str) -> None:
    """Check that the records of `dataset` may be called public.

    Raises:
        PrivacyRefused: they were treated as private before.
    """
    found = ledger.budget(home, dataset)
    if found is not None and found.history:
        raise PrivacyRefused(
            f"{dataset} was trained on as private records: they cannot be public now.",
            "Leave out --public; the search is then paid from its budget.",
        )


def preview_search(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of the search that `spec` describes, for JSON; starts, charges and writes nothing.

    As preview.preview, with "trials", "over", "public", and in a charged search "noise_single": the
    noise multiplier that one run of a trial's length would have at the same epsilon.

    Raises:
        ConfigWrong, PrivacyRefused, NotFound, DataRejected, ModelRejected: as the search would.
    """
    search = search_from(spec)
    if search.public:
        check_public(home, spec["dataset"])
    whole = largest(search.space, search.whole if search.charged else search.settings)
    told = preview(home, {**spec, "settings": whole.as_dict()}, public=search.public)
    told |= search.told()
    if search.charged:
        return told | {"steps": search.steps, "noise_single": _single(home, search, told)}
    seconds = told["seconds"]
    return told | {"seconds": None if seconds is None else seconds * search.trials}


def _single(home: Home, search: Search, told: Mapping[str, Any]) -> float:
    found = ledger.budget(home, told["dataset"])
    return noise_for(
        search.settings.epsilon or told["epsilon"]["limit"],
        delta=told["delta"],
        run=Steps(
            noise_multiplier=0.0, sample_rate=told["sample_rate"], steps=search.steps, draws=told["draws"]
        ),
        spent=found.history if found else (),
    )
