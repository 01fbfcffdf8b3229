"""The one door between the faces and the product: CLI and TUI both go through it.

It knows neither Textual nor typer. Plain values go in and out; work happens in jobs, which outlive it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home, open_home
from appliance.core.profile import has_site
from appliance.data import store
from appliance.data.store import Dataset
from appliance.models import importing, registry
from appliance.models.registry import Model
from appliance.models.removal import shown
from appliance.ops import jobs, removal
from appliance.ops.jobs import JobView
from appliance.ops.removal import Removal
from appliance.security import audit, keys, usage
from appliance.security.people import guard, mode
from appliance.security.people.signing import Signer
from appliance.serve import routes
from appliance.serve.documents import collections
from tui.session_guard import acts, agree, agree_job, anyone
from tui.specs import checked, evaluation_spec
from tui.steps import NextStep, next_step, step_for, step_for_untuned


class Session:
    """One person at one site; where people have roles, the one whose key `signer` has, or nobody."""

    def __init__(
        self, home: Path | None = None, who: str | None = None, signer: Signer | None = None
    ) -> None:
        self.home: Home = open_home(home)
        self.actor = guard.identify(self.home, who, signer)
        self.who = self.actor.person

    @anyone
    def why_not(self, action: str) -> str | None:
        """Why this person may not do an action of the table of rights; None when they may, or may ask."""
        return guard.why_not(self.home, self.actor, action)

    # --- looking

    @acts("site.read")
    def datasets(self) -> list[Dataset]:
        """Every dataset version."""
        return store.datasets(self.home)

    @acts("site.read")
    def dataset(self, name: str) -> Dataset:
        """One dataset: the newest version, or the one named as `name@version`."""
        return store.get(self.home, name)

    @acts("site.read")
    def base(self, name: str | None) -> Model:
        """The base called `name`; without a name, the only one there is.

        Raises:
            ConfigWrong: there are several to choose from. NotFound: there is none.
        """
        if name is not None:
            return registry.get(self.home, name)
        bases = [model for model in self.models() if model.kind == "base"]
        if not bases:
            raise NotFound(
                "There is no base model yet.",
                "Import one, or take the shipped one: cloister model import demo",
            )
        if len(bases) > 1:
            raise ConfigWrong(
                "There are several base models.", f"Add --base: {', '.join(b.name for b in bases)}."
            )
        return bases[0]

    @acts("site.read")
    def models(self) -> list[Model]:
        """Every registry entry, oldest first."""
        return registry.models(self.home)

    @acts("site.read")
    def model(self, name: str) -> Model:
        """One registry entry."""
        return registry.get(self.home, name)

    @acts("site.read")
    def lineage(self, name: str) -> list[Model]:
        """A model and its ancestors."""
        return registry.lineage(self.home, name)

    @acts("site.read")
    def people(self, chain: Sequence[Model] = ()) -> str:
        """Who checked whom when the newest of these models was made here; without one, who does now."""
        kept = next((model.facts["people"] for model in chain if model.facts.get("people")), None)
        return str(kept or mode.statement(self.home))

    @acts("site.read")
    def jobs(self, limit: int = 200) -> list[JobView]:
        """The newest jobs, newest first."""
        return jobs.jobs(self.home, limit)

    @acts("site.read")
    def older_jobs(self, limit: int) -> tuple[list[JobView], int]:
        """Of the jobs older than the newest `limit`: those that still run, and how many others there are."""
        return jobs.older(self.home, limit)

    @acts("site.read")
    def job(self, job_id: str) -> JobView:
        """One job with its events."""
        return jobs.view(self.home, job_id)

    @acts("audit.read")
    def audit_tail(self, count: int = 20) -> list[dict[str, Any]]:
        """The last audit entries."""
        with reading(self.home) as link:
            return audit.tail(link, count)

    @acts("report.read")
    def reports(self, model: str | None = None) -> list[dict[str, Any]]:
        """Evaluation reports, newest first: model, dataset, created, job, passed, partial, path.

        One that is `partial` (not of the whole test split) is no verdict.
        """
        with reading(self.home) as link:
            rows = link.execute(
                "SELECT * FROM reports WHERE ? IS NULL OR model = ? ORDER BY created DESC", (model, model)
            )
            return [dict(row) for row in rows]

    @acts("report.read")
    def privacy_audits(self, model: str) -> list[dict[str, Any]]:
        """Privacy audits that say something of `model`, newest first: verdict, created, path."""
        from appliance.ops.privacy_audit import audits

        return audits(self.home, model)

    @acts("site.read")
    def budget_names(self) -> list[str]:
        """Datasets that have a privacy budget; cheap, unlike `budgets`."""
        from appliance.privacy import ledger

        return [budget.dataset for budget in ledger.budgets(self.home)]

    @acts("site.read")
    def budgets(self) -> list[dict[str, Any]]:
        """What was spent of each dataset's privacy budget. Needs the site profile."""
        from appliance.privacy import ledger

        return [
            {
                "name": budget.dataset,
                "unit": budget.unit,
                "epsilon_spent": budget.spent(),
                "epsilon_limit": budget.epsilon_limit,
                "delta": budget.delta,
                "events": ledger.events(self.home, budget.dataset),
            }
            for budget in ledger.budgets(self.home)
        ]

    @acts("budget.raise", "budget.lower")
    def set_budget(self, dataset: str, epsilon_limit: float) -> float:
        """Change the most epsilon that a dataset may spend in all; returns what it has spent.

        Raises:
            PrivacyRefused: not a positive number, or the dataset does not say whose privacy it is.
        """
        from appliance.privacy import ledger, logged

        ledger.check_limit(epsilon_limit)
        found = store.get(self.home, dataset)
        unit, old = store.unit_of(found), ledger.budget(self.home, found.name)
        limit = (logged.agreed(self.home, found.name).epsilon_limit or 0.0) if old else ledger.EPSILON_LIMIT
        agree(
            self,
            ledger.limit_action(limit, epsilon_limit),
            found.name,
            ledger.limit_content(limit, epsilon_limit),
        )
        if old is None:
            ledger.open_budget(
                self.home, found.name, unit=unit, units=found.units["train"], delta=None, who=self.who
            )
        ledger.set_limit(self.home, found.name, epsilon_limit, who=self.who)
        now = ledger.budget(self.home, found.name)
        return now.spent() if now else 0.0

    @acts("site.read")
    def next_step(self) -> NextStep:
        """What a newcomer should do now, judged from what is there."""
        found = (self.datasets(), self.models(), self.jobs(50), self.reports())
        return next_step(*found, edge=not has_site())

    @acts("site.read")
    def step_after(self, name: str | None) -> NextStep:
        """What to do now that something was done to the model called `name`, or in all without one."""
        models = self.models()
        known = {model.name for model in models}
        chain = self.lineage(name) if name in known and name else []
        trained = [model for model in chain if model.trained]
        if not trained and chain and any(m.kind == "gguf" and m.parent == chain[-1].name for m in models):
            return step_for_untuned(chain[-1].name, self.jobs(50))
        if not trained or not has_site():
            return self.next_step()
        return step_for(trained[0], models, self.jobs(50), self.reports())

    # --- jobs

    @acts("data.import")
    def start_import(self, spec: dict[str, Any]) -> str:
        """Import records; see appliance/data/job.py for the spec."""
        return self._start("import", spec, f"import {spec['name']}")

    @acts("site.read", site=True)
    def plan_training(self, spec: dict[str, Any]) -> dict[str, Any]:
        """What `start_training` would do with this spec: see appliance/train/preview.py. Starts nothing."""
        from appliance.train.preview import preview

        return preview(self.home, spec)

    @acts("train.start", site=True)
    def start_training(self, spec: dict[str, Any]) -> str:
        """Train an adapter; dataset and base must be there."""
        spec = checked(self.home, spec)
        return self._start("train", spec, f"train {spec['dataset']}")

    @acts("site.read", site=True)
    def plan_search(self, spec: dict[str, Any]) -> dict[str, Any]:
        """What `start_search` would do with this spec: see appliance/train/searching.py. Starts nothing."""
        from appliance.train.searching import preview_search

        return preview_search(self.home, spec)

    @acts("train.start", site=True)
    def start_search(self, spec: dict[str, Any]) -> str:
        """Train with several settings and keep the best; see appliance/train/search.py for the spec."""
        spec = checked(self.home, spec)
        return self._start("search", spec, f"search {spec['dataset']}")

    def _start(self, kind: str, spec: dict[str, Any], title: str) -> str:
        """Start a job for this person, once whoever must agree to it has."""
        agree_job(self, kind, spec)
        return jobs.start(self.home, kind, spec, title=title, who=self.who, signer=self.actor.signer)

    @acts("site.read", site=True)
    def evaluation(
        self, name: str, *, against: str | None, dataset: str | None, split: str, limit: int | None
    ) -> dict[str, Any]:
        """The spec for judging `name` with what belongs to it: its base and its GGUF files.

        Raises:
            ConfigWrong: no dataset was given and the model names none.
        """
        return evaluation_spec(self.home, name, against=against, dataset=dataset, split=split, limit=limit)

    @acts("evaluate.start", site=True)
    def start_evaluation(self, spec: dict[str, Any]) -> str:
        """Evaluate models on a dataset's held-out split."""
        store.get(self.home, spec["dataset"], spec.get("version"))
        for name in spec["models"]:
            registry.get(self.home, name)
        return self._start("evaluate", spec, f"evaluate {spec['models'][-1]}")

    @acts("quantize.start", site=True)
    def start_quantising(self, spec: dict[str, Any]) -> str:
        """Convert and quantise a base or an adapter; settings are checked before anything starts."""
        from quantize.limits import limits_with
        from quantize.recipe import recipe_from

        limits_with(spec.get("limits"))
        for kind in spec.get("types") or ():
            recipe_from(kind, spec)
        model = registry.get(self.home, spec["model"])
        registry.check_alone(model)
        if model.kind == "gguf":
            raise ConfigWrong(
                f"{model.name} is a GGUF file already.", "Quantise the adapter or base it came from."
            )
        return self._start("quantize", spec, f"quantise {model.name}")

    @acts("site.read")
    def plan_quantising(
        self, spec: dict[str, Any], *, device: str | None = None, context: int | None = None
    ) -> dict[str, Any]:
        """What `start_quantising` would make: see quantize/plan_files.py. Starts nothing."""
        from quantize.plan_files import plan_files, read_bytes

        return plan_files(
            self.home,
            spec["model"],
            spec["types"],
            spec=spec,
            context=context,
            device=None if device is None else read_bytes(device),
        )

    @acts("serve.start")
    def start_serving(self, spec: dict[str, Any]) -> str:
        """Bring up the endpoint for GGUF models, or for adapters' smallest files that may be served.

        Raises:
            NotFound, ConfigWrong, GateFailed, Busy, ModelRejected: as `check_serving`; no job was made.
        """
        from appliance.serve.asked import check_serving

        check_serving(self.home, spec)
        names = spec.get("models") or [spec["model"]]
        return self._start("serve", spec, f"serve {', '.join(names)}")

    @acts("site.read")
    def endpoints(self) -> list[dict[str, Any]]:
        """The running endpoints with their figures: `job`, `url` and what their progress last said."""
        running = [job for job in self.jobs() if job.kind == "serve" and job.state == "running"]
        ready = {
            job.id: event for job in running for event in self.job(job.id).events if event["event"] == "ready"
        }
        return [
            {"job": job.id, "url": ready[job.id]["url"], **job.last} for job in running if job.id in ready
        ]

    @acts("privacy.audit", site=True)
    def start_privacy_audit(self, spec: dict[str, Any]) -> str:
        """Audit a trained model and its GGUF files for what they give away of their records."""
        model = registry.get(self.home, spec["model"])
        registry.check_alone(model)
        return self._start("audit-privacy", spec, f"audit {model.name}")

    @acts("job.stop")
    def stop_job(self, job_id: str) -> JobView:
        """Stop a job; what it finished is kept."""
        return jobs.stop(self.home, job_id, who=self.who)

    @acts("job.resume")
    def resume_job(self, job_id: str) -> None:
        """Run an ended job again from its last checkpoint."""
        jobs.resume(self.home, job_id, who=self.who, signer=self.actor.signer)

    # --- models and keys

    @acts("model.import")
    def import_model(self, source: Path, name: str) -> Model:
        """Import a base folder or a GGUF file, after checking it."""
        if source.suffix.lower() == ".gguf":
            from quantize.foreign import check_gguf

            return importing.import_gguf(self.home, source, name, check=check_gguf, who=self.who)
        from quantize.origin import check_base

        return importing.import_base(self.home, source, name, check=check_base, who=self.who)

    @acts("site.read")
    def plan_removal(self, name: str) -> Removal:
        """What would go with a model, if nothing needs it; raises as appliance/ops/removal.py does."""
        return removal.plan_removal(self.home, name)

    @acts("model.remove")
    def remove_model(self, name: str) -> Removal:
        """Remove a model and its files, once two people have agreed."""
        agree(self, "model.remove", name, shown(registry.get(self.home, name)))
        return removal.remove_model(self.home, name, who=self.who)

    @acts("model.import")
    def demo_base(self, name: str | None = None) -> Model:
        """The shipped demo base, entered as `name` (`demo-base`) the first time."""
        for model in self.models():
            if model.name == (name or "demo-base") and model.facts.get("demo"):
                return model
        return importing.import_base(self.home, importing.DEMO_BASE, name or "demo-base", who=self.who)

    @acts("key.new", "key.own")
    def new_key(self, name: str, **scope: Any) -> tuple[str, str]:
        """Make an API key: its id and the secret, shown once. `scope`: as of `keys.new_key`."""
        known = routes.load(self.home)
        for model in scope.get("models", ()):
            if model not in known:
                registry.get(self.home, model)
        for collection in scope.get("collections", ()):
            collections.found_index(self.home, collection)
        return keys.new_key(self.home, name, self.who, **scope)

    @acts("site.read")
    def api_keys(self) -> list[keys.Key]:
        """All API keys, without secrets."""
        return keys.list_keys(self.home)

    @acts("site.read")
    def key_usage(self, days: int) -> dict[str, list[usage.Day]]:
        """What each key used on each of the last `days` days (UTC), newest first."""
        return usage.by_key(self.home, keys.utc_now(), days)

    @acts("key.revoke", "key.own")
    def revoke_key(self, key_id: str) -> None:
        """Revoke an API key at once."""
        keys.revoke(self.home, key_id, self.who)
