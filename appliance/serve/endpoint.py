"""One endpoint: which model a request goes to, what it may read, and what is kept of its answer."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from appliance.security.keys import Grant
from appliance.security.log.requests import RequestLog
from appliance.serve.admission import Admission
from appliance.serve.answers import Part, answer
from appliance.serve.cache import Asked, Cache, asked, whole
from appliance.serve.counts import Counts
from appliance.serve.documents.passages import Passage
from appliance.serve.embedding import Embedder
from appliance.serve.embeddings import EmbedAsk
from appliance.serve.feedback import Answers
from appliance.serve.house import House, Offer
from appliance.serve.library import Library
from appliance.serve.logged import Tally, logged
from appliance.serve.refusals import TOO_LONG, Refused
from appliance.serve.requests import Ask
from appliance.serve.routes import Choice, Route, Routes
from appliance.serve.stats import Stats

_FIGURES = re.compile(r": [0-9].*")
_REMEMBERED = 4096  # answers whose route is known when feedback comes


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all open requests together, may ask for."""

    body_bytes: int = 1 << 20
    tokens: int = 1024
    open_requests: int = 1024


@dataclass(kw_only=True)
class Way:
    """Where one request goes: the model, and the route with its reason if it came by one."""

    offer: Offer
    tally: Tally
    route: Route | None = None
    choice: Choice | None = None


@dataclass(kw_only=True)
class Endpoint:
    """Everything that a request passes on its way to an answer. No `cache`: nothing is given twice.

    `log`: where requests are written before they are answered.
    """

    house: House
    admission: Admission
    library: Library
    routes: Routes
    counts: Counts
    answers: Answers = field(default_factory=Answers)
    cache: Cache | None = None
    log: RequestLog | None = None
    embedder: Embedder | None = None
    embedder_name: str = ""
    limits: Limits = field(default_factory=Limits)
    stats: Stats = field(default_factory=Stats)
    _ways: OrderedDict[str, tuple[str, str]] = field(default_factory=OrderedDict)

    def names(self, grant: Grant) -> list[str]:
        """What a key may ask for: models, and routes between models."""
        models = [offer.name for offer in self.house.offers]
        found = [name for name in [*models, *self.routes.all()] if self.may(grant, name)]
        embeds = self.embedder is not None and (not grant.models or self.embedder_name in grant.models)
        return list(dict.fromkeys([*found, self.embedder_name] if embeds else found))

    def may(self, grant: Grant, name: str) -> bool:
        """Whether a key may ask for `name`; a route leads only to models of this endpoint."""
        offer = self.house.find(name)
        if offer is not None:
            return not grant.models or bool(set(offer.names) & set(grant.models))
        route = self.routes.get(name)
        if route is None or not all(self.house.find(arm) for arm in (route.a, route.b)):
            return False
        return name in grant.models or all(self.may(grant, arm) for arm in (route.a, route.b))

    async def reply(self, grant: Grant, ask: Ask) -> AsyncGenerator[Part, None]:
        """The parts of the answer; the last has the finish reason, the counts and what we say of it.

        Raises:
            Refused: too much, or something that this key, model or endpoint does not have.
            EngineFailed: the engine stopped.
        """
        if self.stats.active >= self.limits.open_requests:
            raise Refused(
                "Too many open requests.", status=429, kind="rate_limit_error", code="too_busy", retry_after=1
            )
        with self.admission.enter(grant), self.stats.counted(), self.stats.waiting() as first:
            async with aclosing(self._answered(grant, ask)) as parts:
                async for part in parts:
                    first()
                    yield part

    async def embed(self, grant: Grant, ask: EmbedAsk) -> tuple[list[list[float]], int]:
        """A vector for each text, and how many tokens the texts have.

        Raises:
            Refused: this endpoint has no embedding model of that name, or a text is too long for it.
            EngineFailed: the engine stopped.
        """
        if self.embedder is None:
            raise Refused(
                "This endpoint has no embedding model. Its operator can add one: cloister serve MODEL --embed"
                " NAME.",
                status=404,
                code="model_not_found",
            )
        if ask.model != self.embedder_name:
            raise Refused("There is no such embedding model here.", status=404, code="model_not_found")
        if grant.models and ask.model not in grant.models:
            raise Refused("There is no such embedding model here.", status=404, code="model_not_found")
        with self.admission.enter(grant), self.stats.counted():
            tokens = [await self.embedder.tokenize(text) for text in ask.texts]
            longest = max(map(len, tokens))
            if longest > self.embedder.context:
                raise Refused(
                    f"A text has {longest} tokens; this model takes {self.embedder.context}.",
                    param="input",
                    code=TOO_LONG,
                )
            count = sum(map(len, tokens))
            tally = Tally(model=self.embedder_name, read=count)
            async with logged(self.log, grant.id, ask.texts, tally) as on_disk:
                began = time.monotonic()
                vectors = await self.embedder.embed(tokens)
                self.stats.answered(ask.model, count, 0, time.monotonic() - began)
                self.admission.spent(grant, count, 0)
                await on_disk()
            return vectors, count

    def labels(self, model: str) -> tuple[str, ...]:
        """What a label model can answer; nothing for other models and those that are not served now."""
        offer = self.house.find(model)
        return () if offer is None or offer.task is None else offer.task.labels

    def heard(self, answer_id: str, thumb: int | None, ratings: dict[str, int]) -> None:
        """Count what a person said of an answer that came by a route, once."""
        way = self._ways.pop(answer_id, None)
        if way is None:
            return
        if thumb:
            self.counts.note(*way, "up" if thumb > 0 else "down")
        for rating in ratings.values():
            self.counts.note(*way, "ratings")
            self.counts.note(*way, "rating_sum", rating)

    async def _answered(self, grant: Grant, ask: Ask) -> AsyncGenerator[Part, None]:
        way = self._way(grant, ask)
        prompt = ask.messages or ask.prompt
        async with (
            logged(self.log, grant.id, prompt, way.tally) as on_disk,
            aclosing(self._given(grant, ask, way)) as parts,
        ):
            async for part in parts:
                await on_disk()
                yield part

    async def _given(self, grant: Grant, ask: Ask, way: Way) -> AsyncGenerator[Part, None]:
        """From the cache, or from a model; the last part with what we say of the answer."""
        grounded, version = ask, ""
        passages: tuple[Passage, ...] | None = None
        if ask.collections:
            if way.offer.task is not None and way.offer.task.kind == "label" and ask.form in (None, "label"):
                raise Refused("This model answers with labels, not from documents.", param="collections")
            found = await self.library.ground(grant, ask)
            grounded, passages, version = found.ask, found.passages, found.version
        known = self._known(grant, way, ask, version)
        hit = self.cache.get(known) if self.cache is not None and known is not None else None
        if hit is not None:
            (part,) = hit.answer.parts()
            told = json.loads(hit.answer.extra or "{}") | {"cached": "near" if hit.near else "exact"}
            yield self._closed(grant, way, ask, part, part.piece.text, told)
            return
        said: list[Part] = []
        async with aclosing(self._asked(grant, way, grounded)) as parts:
            async for part in parts:
                said.append(part)
                if not part.piece.finish:
                    yield part
        text = "".join(part.piece.text for part in said)
        told = self._told(way, text, passages)
        if self.cache is not None and known is not None and not said[-1].calls:
            kept = whole(said, json.dumps(told))
            if kept is not None:
                self.cache.put(known, kept)
        yield self._closed(grant, way, ask, said[-1], text, told)

    async def _asked(self, grant: Grant, way: Way, ask: Ask) -> AsyncGenerator[Part, None]:
        """From the model of `way`, which changes when its answer is too unsure to give."""

        def spend(read: int, written: int) -> None:
            way.tally.read += read
            way.tally.written += written
            self.admission.spent(grant, read, written)

        while True:
            onward = None
            way.tally.model = way.offer.name
            if way.route is not None:
                self.counts.note(way.route.name, way.offer.name, "requests")
                self.stats.by_route[(way.route.name, way.offer.name)] += 1
            try:
                async with (
                    self.house.use(way.offer) as served,
                    aclosing(answer(served, ask, owner=grant.id, spend=spend)) as parts,
                ):
                    async for part in parts:
                        if part.piece.finish:
                            counts = (part.piece.prompt_tokens, part.piece.completion_tokens)
                            self.stats.answered(way.offer.name, *counts, part.piece.seconds)
                            onward = self._onward(way, part)
                        if onward is None:
                            yield part
            except Exception:
                if way.route is not None:
                    self.counts.note(way.route.name, way.offer.name, "errors")
                raise
            if onward is None:
                return
            way.offer, way.choice = self._arm(onward.model), onward

    def _onward(self, way: Way, part: Part) -> Choice | None:
        """The larger model, when the small one of a hybrid was unsure of its label."""
        if way.route is None or part.label is None or way.offer is not self._arm(way.route.a):
            return None
        onward = way.route.after(part.label.confidence)
        if onward is not None:
            self.counts.note(way.route.name, way.offer.name, "sent_on")
        return onward

    def _way(self, grant: Grant, ask: Ask) -> Way:
        if not self.may(grant, ask.model):
            # One answer for both: a key learns nothing of models that it may not use.
            raise Refused("There is no such model here; see /v1/models.", status=404, code="model_not_found")
        offer = self.house.find(ask.model)
        if offer is not None:
            return Way(offer=offer, tally=Tally(model=offer.name))
        route = self.routes.get(ask.model)
        if route is None:
            raise Refused("There is no such model here; see /v1/models.", status=404, code="model_not_found")
        text = ask.messages[-1]["content"] if ask.messages else ask.prompt
        choice = route.pick(grant.id, text, ask.user or None)
        tally = Tally(model=choice.model, route=route.name)
        return Way(offer=self._arm(choice.model), tally=tally, route=route, choice=choice)

    def _arm(self, name: str) -> Offer:
        offer = self.house.find(name)
        if offer is None:
            raise Refused("There is no such model here; see /v1/models.", status=404, code="model_not_found")
        return offer

    def _known(self, grant: Grant, way: Way, ask: Ask, version: str) -> Asked | None:
        if self.cache is None or ask.tools:
            return None
        # The choice between two models is part of the answer, so a route has entries of its own.
        model = way.offer.name if way.route is None else f"{way.route.name}:{way.offer.name}"
        return asked(
            ask,
            scope=grant.id,
            model=model,
            sha256=way.offer.sha256,
            documents=version,
            near=self.cache.near,
        )

    def _told(self, way: Way, text: str, passages: Sequence[Passage] | None) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if way.choice is not None:
            # Figures are of what a router learnt from records: not for everybody.
            told["route"] = {"model": way.offer.name, "reason": _FIGURES.sub("", way.choice.reason)}
        if passages is not None:
            told |= self.library.closing(text, passages)
        return told

    def _closed(self, grant: Grant, way: Way, ask: Ask, part: Part, text: str, told: dict[str, Any]) -> Part:
        """The last part with its id, which feedback names, and all that is told of the answer."""
        answer_id = secrets.token_hex(12)
        self.answers.keep(
            answer_id,
            grant.id,
            model=way.offer.name,
            # A label model reads the last message alone.
            messages=ask.messages[-1:] if part.label else ask.messages or _prompted(ask),
            text=text,
            passages=told.get("citations", ()),
            label=part.label is not None,
        )
        if way.route is not None:
            self._ways[answer_id] = (way.route.name, way.offer.name)
            while len(self._ways) > _REMEMBERED:
                self._ways.popitem(last=False)
        return replace(part, extra=told | {"answer_id": answer_id})


def _prompted(ask: Ask) -> list[dict[str, Any]]:
    return [{"role": "user", "content": ask.prompt}]
