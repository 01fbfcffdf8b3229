"""Documents on the way of a request: what a key may read, what goes into the prompt, what the answer owes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from appliance.core.errors import ApplianceError, NotFound
from appliance.core.home import Home
from appliance.security.keys import Grant
from appliance.serve.documents import collections as shelves
from appliance.serve.documents import index
from appliance.serve.documents.citations import attribute, check_citations, unknown_citations
from appliance.serve.documents.embedding import Embedder
from appliance.serve.documents.grounding import ground
from appliance.serve.documents.job import refresh
from appliance.serve.documents.passages import Changed, Passage, open_passage
from appliance.serve.documents.retrieve import KEYWORDS, search
from appliance.serve.documents.status import status
from appliance.serve.refusals import Refused
from appliance.serve.requests import Ask

_LIMIT = 4  # passages of about 200 tokens


@dataclass(frozen=True, kw_only=True)
class Grounded:
    """A request with its passages in it; `version` changes when a collection does."""

    ask: Ask
    passages: tuple[Passage, ...]
    version: str


@dataclass(frozen=True, kw_only=True)
class Library:
    """The collections of a site; `embedder` is the endpoint's own, if it has one."""

    home: Home
    embedder: Embedder | None = None

    @property
    def search(self) -> str:
        """How documents are searched, in words."""
        return f"keywords and {self.embedder.name}" if self.embedder else KEYWORDS

    def listed(self, grant: Grant) -> list[dict[str, Any]]:
        """The collections that a key may read."""
        found = []
        for name in self._readable(grant):
            with suppress(ApplianceError):  # one that is being made, or is damaged
                found.append({"id": name, "files": status(self.home, name).read})
        return found

    def refresh(self, job: str, who: str) -> list[str]:
        """Index again the collections whose folders have changed; their names. Blocks, and reads files."""
        done = []
        for name in shelves.collections(self.home):
            with suppress(ApplianceError):  # its folder is away, or a job indexes it
                if refresh(self.home, name, job=job, who=who, embedder=self.embedder) is not None:
                    done.append(name)
        return done

    async def ground(self, grant: Grant, ask: Ask) -> Grounded:
        """Put the passages that answer the last message into the request.

        Raises:
            Refused: a collection that this key may not read, or that is not there; no question.
        """
        if not set(ask.collections) <= set(self._readable(grant)):
            # One answer for both: a key learns nothing of collections that it may not read.
            raise Refused(
                "There is no such collection here; see /v1/collections.",
                status=404,
                param="collections",
                code="collection_not_found",
            )
        if ask.messages[-1]["role"] != "user":
            raise Refused("The last message must be the user's question.", param="messages")
        return await asyncio.to_thread(self._ground, ask)

    def closing(self, answer: str, passages: Sequence[Passage]) -> dict[str, Any]:
        """What the answer cites, whether its quotes stand there, and which sentences nothing supports."""
        cited: dict[int, list[bool]] = {}
        quotes: dict[int, str] = {}
        for citation in check_citations(answer, passages):
            cited.setdefault(citation.number, []).append(citation.verified)
            for quote in citation.quotes:
                quotes.setdefault(citation.number, answer[quote.start : quote.end])
        claims = attribute(answer, passages)
        for claim in claims:
            if not cited and claim.supported and claim.number:
                quotes.setdefault(claim.number, "")
        numbers = sorted(cited or quotes)
        return {
            "citations": [
                {
                    "id": number,
                    "address": passages[number - 1].address,
                    "file": passages[number - 1].file,
                    "page": passages[number - 1].page,
                    "quote": quotes.get(number, ""),
                    "verified": all(cited.get(number, [True])),
                    "by": "model" if number in cited else "words",
                }
                for number in numbers
            ],
            "unknown": unknown_citations(answer, passages),
            "unsupported": [answer[claim.start : claim.end] for claim in claims if claim.supported is False],
        }

    def open(self, grant: Grant, address: str) -> dict[str, Any]:
        """The exact text at an address, with what stands around it.

        Raises:
            NotFound: there is none that this key may read.
        """
        allowed = self._readable(grant)
        try:
            found = open_passage(self.home, address, allowed=allowed)
        except Changed as problem:
            raise Refused(f"{problem.message} Ask again.", status=409, code="document_changed") from None
        return {
            "text": found.passage.text,
            "before": found.before,
            "after": found.after,
            "file": found.passage.file,
            "page": found.passage.page,
            "stale": not found.checked,
        }

    def _readable(self, grant: Grant) -> list[str]:
        return [name for name in shelves.collections(self.home) if name in grant.collections]

    def _ground(self, ask: Ask) -> Grounded:
        try:
            versions = [self._version(name) for name in ask.collections]
            found = search(
                self.home,
                ask.collections,
                ask.messages[-1]["content"],
                embed=self.embedder,
                limit=_LIMIT,
            )
        except NotFound:
            raise Refused("There is no such collection here.", status=404, param="collections") from None
        messages = tuple(ground(ask.messages, found.passages))
        return Grounded(
            ask=replace(ask, messages=messages),
            passages=tuple(found.passages),
            version=" ".join(versions),
        )

    def _version(self, name: str) -> str:
        with index.looking(shelves.found_index(self.home, name)) as link:
            return f"{name}@{index.meta(link)['updated']}"
