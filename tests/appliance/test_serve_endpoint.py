"""A whole endpoint with everything on it: limits, routes, documents, feedback, embeddings, https."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import serve_support as support

from appliance.core.errors import ConfigWrong, GateFailed
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.ops import jobs
from appliance.security import keys
from appliance.serve import client, route_changes
from appliance.serve.chosen import choose
from appliance.serve.counts import counts
from appliance.serve.documents.job import run as add_documents
from appliance.serve.endpoint import _FIGURES
from appliance.serve.library import Library
from appliance.serve.requests import read_chat
from appliance.serve.review import list_feedback, read_feedback
from tui.cli.serve import snippet

LEAVE = "Every employee has thirty days of leave. Leave must be asked for two weeks ahead."
PARKING = "The car park opens at six. Visitors pay four euros a day."


@dataclass
class Site:
    home: Home
    url: str
    job: jobs.JobView

    def key(self, **terms: Any) -> str:
        return keys.new_key(self.home, "tests", "tests", **terms)[1]

    def http(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def ask(
        self, key: str, text: str = "cancel my visit", model: str = support.NAME, **more: Any
    ) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        with self.http(key) as client:
            return client.post("/v1/chat/completions", json=body)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = support.new_home(tmp_path_factory.mktemp("home"))
    support.add_model(home, "plain", support.gguf(False))
    support.add_model(home, "other", support.tools_gguf())
    folder = tmp_path_factory.mktemp("docs")
    (folder / "leave.md").write_text(f"# Leave\n\n{LEAVE}\n")
    (folder / "parking.txt").write_text(PARKING)
    work = home.jobs / "docs"
    work.mkdir()
    job = Job(id="docs", kind="docs", folder=work, home=home, who="tests")
    add_documents({"folder": str(folder), "collection": "policies"}, job)
    route_changes.make_split(home, "ab", a="plain", b="other", share=0.5, difference=0.05, who="tests")
    models = [support.NAME, "plain", "other", "ab"]
    with support.endpoint(home, models=models, threads=1, embed="plain", cache="exact") as (view, url, _):
        yield Site(home=home, url=url, job=view)


def test_a_key_asks_only_its_models_and_only_so_much(site: Site) -> None:
    key = site.key(models=["plain"], requests_per_minute=2)
    with site.http(key) as client:
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["plain"]
    other = site.key(models=["plain"])
    refused, unknown = site.ask(other, model=support.NAME), site.ask(other, model="nothing")
    assert refused.status_code == unknown.status_code == 404 and refused.json() == unknown.json()
    assert site.ask(key, model="plain", max_tokens=2).status_code == 200
    site.ask(key, model="plain", max_tokens=2)
    over = site.ask(key, model="plain", max_tokens=2)
    assert over.status_code == 429 and int(over.headers["retry-after"]) <= 30
    assert over.json()["error"]["code"] == "rate_limit_exceeded"


def test_a_days_tokens_are_used_up_even_by_who_hangs_up(site: Site) -> None:
    key = site.key(tokens_per_day=60)
    with site.http(key) as client:
        body = {
            "model": "plain",
            "messages": [{"role": "user", "content": "x"}],
            "stream": True,
        } | support.ENDLESS
        while client.get("/v1/models").status_code == 200:
            with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code == 429:
                    answer.read()
                    assert answer.json()["error"]["code"] == "daily_tokens_used"
                    break
                lines = answer.iter_lines()
                for _ in range(30):
                    next(lines)
    support.until(lambda: any(each.tokens >= 60 for each in _used(site, key)))


def _used(site: Site, key: str) -> list[Any]:
    from appliance.security import usage

    return usage.by_key(site.home, keys.utc_now()).get(key.split("_")[1], [])


def test_an_expired_key_is_no_key(site: Site) -> None:
    key = site.key(expires=keys.utc_now() + timedelta(seconds=1.5))
    assert site.ask(key).status_code == 200
    support.until(lambda: site.ask(key).status_code == 401)


def test_the_same_question_is_answered_from_the_cache_of_its_key(site: Site) -> None:
    one, other = site.key(), site.key()
    first, again, theirs = (site.ask(key, "a question of mine").json() for key in (one, one, other))
    assert "cached" not in first["cloister"] and again["cloister"]["cached"] == "exact"
    assert "cached" not in theirs["cloister"]
    assert (
        again["choices"] == first["choices"]
        and again["usage"]["total_tokens"] == first["usage"]["total_tokens"]
    )
    assert again["cloister"]["label"] == first["cloister"]["label"]
    assert again["cloister"]["answer_id"] != first["cloister"]["answer_id"]


def test_answers_from_documents_cite_what_the_key_may_read(site: Site) -> None:
    key = site.key(collections=["policies"])
    question = "How many days of leave has an employee?"
    found = site.ask(key, question, model="plain", collections=["policies"], max_tokens=8)
    assert found.status_code == 200, found.text
    plain = site.ask(key, question, model="plain", max_tokens=8)
    assert found.json()["usage"]["prompt_tokens"] > plain.json()["usage"]["prompt_tokens"] + 20
    assert {"citations", "unsupported"} <= found.json()["cloister"].keys()
    with site.http(key) as client:
        assert client.get("/v1/collections").json()["data"] == [{"id": "policies", "files": 2}]
    denied = site.ask(site.key(), question, model="plain", collections=["policies"])
    unknown = site.ask(site.key(), question, model="plain", collections=["nothing"])
    assert denied.status_code == unknown.status_code == 404 and denied.json() == unknown.json()
    label = site.ask(key, question, collections=["policies"])
    assert label.status_code == 400 and "labels" in label.json()["error"]["message"]


def test_a_passage_opens_for_its_readers_alone(site: Site) -> None:
    from appliance.serve.documents.retrieve import retrieve

    (passage, *_) = retrieve(site.home, ["policies"], "leave of an employee")
    for key, status in ((site.key(collections=["policies"]), 200), (site.key(), 404)):
        with site.http(key) as client:
            answer = client.get("/v1/passages", params={"address": passage.address})
            assert answer.status_code == status, answer.text
            if status == 200:
                assert "thirty days" in answer.json()["text"] and answer.json()["stale"] is False


def test_feedback_reaches_the_reviewer_and_the_route(site: Site) -> None:
    key = site.key()
    said = site.ask(key, "which arm am I?", model="ab", max_tokens=3, user="ward 3").json()["cloister"]
    assert said["route"]["model"] in ("plain", "other") and "arm" in said["route"]["reason"]
    again = site.ask(key, "and now?", model="ab", max_tokens=3, user="ward 3").json()["cloister"]
    assert again["route"]["model"] == said["route"]["model"]  # sticky
    body = {"answer_id": said["answer_id"], "thumb": 1, "correction": "North.", "ratings": {"clear": 4}}
    with site.http(key) as client, site.http(site.key()) as stranger:
        assert stranger.post("/v1/feedback", json=body).status_code == 404
        made = client.post("/v1/feedback", json=body)
        assert made.status_code == 200, made.text
        assert client.post("/v1/feedback", json={"answer_id": "0" * 24, "thumb": 1}).status_code == 404
        assert client.post("/v1/feedback", json=body | {"thumb": 3}).status_code == 400
    (row,) = [row for row in list_feedback(site.home) if row.corrected]
    _, words = read_feedback(site.home, row.id)
    assert row.id == made.json()["id"] and "which arm am I?" in json.dumps(words.messages)
    counted = lambda: counts(site.home, "ab")[said["route"]["model"]]  # noqa: E731
    support.until(lambda: counted()["up"] == 1 and counted()["rating_sum"] == 4)
    assert counted()["requests"] >= 2


def test_a_label_is_corrected_to_one_of_the_models_labels(site: Site) -> None:
    key = site.key()
    body = {"answer_id": site.ask(key, "my knee hurts").json()["cloister"]["answer_id"]}
    with site.http(key) as client:
        refused = client.post("/v1/feedback", json=body | {"correction": "nosuchlabel"})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, "correction")
        assert ", ".join(support.LABELS) in error["message"] and "nosuchlabel" not in error["message"]
        assert client.post("/v1/feedback", json=body | {"correction": " repeat "}).status_code == 200


def test_a_prompt_that_is_too_long_is_told_once(site: Site) -> None:
    messages = [{"role": "user", "content": "and then " * 4000}]
    with pytest.raises(ConfigWrong) as told:
        client.ask(site.url, site.key(), "plain", messages)
    assert re.fullmatch(r"The prompt has \d+ tokens; this model takes \d+\.", told.value.message)
    assert told.value.hint == "Say it in fewer words."
    with pytest.raises(ConfigWrong) as told:
        client.ask(site.url, "clo_wrong", "plain", messages)
    assert told.value.hint == "Check the key."


def test_ready_names_the_routes_that_were_asked_for(site: Site) -> None:
    ready = support.ready(site.home, site.job.id)
    assert ready["routes"] == ["ab"] and ready["models"] == [support.NAME, "plain", "other"]


def test_embeddings_through_the_stock_client(site: Site) -> None:
    client = openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.key(), max_retries=0)
    found = client.embeddings.create(model="plain", input=["a bed", "a bed", "an invoice"])
    one, same, other = (each.embedding for each in found.data)
    assert one == pytest.approx(same, abs=1e-5) and one != pytest.approx(other, abs=1e-2)
    assert sum(x * x for x in one) == pytest.approx(1.0, abs=1e-4) and found.usage.prompt_tokens > 4
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=support.NAME, input="x")
    client.close()


def test_a_key_for_some_models_sees_no_figures_of_others(site: Site) -> None:
    with site.http(site.key(models=["plain"])) as client:
        assert client.get("/metrics").status_code == 403
        assert client.get("/metrics/", headers={"host": "evil.example"}).status_code == 404


def test_failed_calls_of_tools_are_paid_for(site: Site) -> None:
    key = site.key()
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    more = {"tools": [tool], "tool_choice": "required", "max_tokens": 5}
    assert site.ask(key, model="other", **more).status_code == 422
    support.until(lambda: any(each.completion_tokens == 5 for each in _used(site, key)))


def test_a_key_pushes_only_its_own_answers_out_of_memory(site: Site) -> None:
    one, other = site.key(), site.key()
    mine = site.ask(one, "is my answer still there?").json()["cloister"]["answer_id"]
    history = [{"role": "user", "content": "x" * 900_000}, {"role": "user", "content": "and now?"}]
    for _ in range(6):
        with site.http(other) as client:
            body = {"model": support.NAME, "messages": history}
            assert client.post("/v1/chat/completions", json=body).status_code == 200
    with site.http(one) as client:
        assert client.post("/v1/feedback", json={"answer_id": mine, "thumb": 1}).status_code == 200


def test_no_crash_leaves_a_core_with_what_users_asked(site: Site) -> None:
    gateway = support.gateway(site.job)
    engines = gateway.children()
    assert len(engines) == 4  # three models and the embedder
    for process in (gateway, *engines):
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max core file size +[01] +[01] ", limits), process.name()


def test_a_routes_figures_stay_inside() -> None:
    assert [_FIGURES.sub("", each) for each in ("hard: 0.52 >= 0.5", "split: arm B")] == [
        "hard",
        "split: arm B",
    ]


def test_status_and_metrics_tell_the_same(site: Site) -> None:
    with site.http(site.key()) as client:
        page = client.get("/metrics").text
        assert "cloister_requests_total" in page and 'cloister_answers_total{model="plain"}' in page
        described = client.get("/openapi.json").json()
        assert "/v1/feedback" in described["paths"]
        front = client.get("/")
        assert front.status_code == 200 and "default-src 'none'" in front.headers["content-security-policy"]
    assert httpx.get(f"{site.url}/metrics", trust_env=False).status_code == 401
    last = jobs.view(site.home, site.job.id).last
    assert last["requests"] > 5 and last["cache_hits"] >= 1 and last["joules"] > 0


def test_beyond_this_machine_it_is_https_with_the_sites_own_certificate(tmp_path: Path) -> None:
    home = support.new_home(tmp_path / "home")
    with support.endpoint(home, host="0.0.0.0", threads=1) as (job, url, key):  # noqa: S104
        ready = support.ready(home, job.id)
        assert url.startswith("https://") and len(ready["fingerprint"].replace(":", "")) == 64
        trusted = ssl.create_default_context(cafile=ready["ca"])
        assert "0.0.0.0" not in url and snippet(url, "m", ready["ca"]).count(url) == 2  # noqa: S104
        here = f"https://127.0.0.1:{url.rpartition(':')[2]}"
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.get(f"{here}/v1/models", headers=headers, verify=trusted, trust_env=False)
        assert answer.json()["data"][0]["id"] == support.NAME
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{here}/health", trust_env=False)


def test_adapters_of_one_base_are_chosen_by_name(tmp_path: Path) -> None:
    home = support.new_home(tmp_path / "home")
    support.add_model(home, "base-f16", support.gguf(False), parent="base", facts={"type": "F16"})
    for number, path in enumerate(support.adapters()):
        facts = {"proof": {"base": "base"}}
        support.add_model(
            home, f"ward-{number}-lora", path, kind="lora", parent=f"ward-{number}", facts=facts
        )
    with pytest.raises(GateFailed, match="ward-0, which ward-0-lora was made from, has no report"):
        choose(home, "ward-0-lora", gated=True)
    drawn = support.ENDLESS | {"max_tokens": 12}
    names = ["base-f16", "ward-0-lora", "ward-1-lora"]
    with support.endpoint(home, models=names, threads=1, slots=2, cache="off", ungated=True) as (
        job,
        url,
        key,
    ):
        here = Site(home=home, url=url, job=job)
        assert len(support.processes(job)) == 2  # the gateway and one engine for all three
        said = [
            [here.ask(key, "a bed", model=name, **drawn).json()["choices"] for name in names]
            for _ in range(3)
        ]
    assert said[0] == said[1] == said[2]
    texts = [choices[0]["message"]["content"] for choices in said[0]]
    assert len(set(texts)) == 3, texts


def test_documents_that_change_are_read_again(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "hours"
    folder.mkdir()
    (folder / "hours.txt").write_text("The clinic opens at eight.")
    work = site.home.jobs / "hours"
    work.mkdir()
    job = Job(id="hours", kind="docs", folder=work, home=site.home, who="tests")
    add_documents({"folder": str(folder), "collection": "hours"}, job)
    library = Library(home=site.home)
    assert library.refresh("serve", "tests") == []
    (folder / "hours.txt").write_text("The clinic opens at nine since Monday.")
    assert library.refresh("serve", "tests") == ["hours"]
    grant = keys.Grant(id="k", name="k", collections=("hours",))
    ask = read_chat(
        {"model": "m", "messages": [{"role": "user", "content": "When does the clinic open?"}]}
        | {"collections": ["hours"]},
        most_tokens=5,
    )
    found = asyncio.run(library.ground(grant, ask))
    assert "nine since Monday" in found.ask.messages[0]["content"]
    told = library.closing('It opens "at nine since Monday" [1]. Parking is free.', found.passages)
    assert told["citations"][0]["verified"] and told["unsupported"] == ["Parking is free."]
    assert not library.closing('It opens "at ten" [1].', found.passages)["citations"][0]["verified"]
    assert library.closing("It opens at nine [7].", found.passages)["unknown"] == [7]
