"""The endpoint as users meet it: a real job, a real llama-server, the stock `openai` client."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import psutil
import pytest
import serve_support as support

from appliance.core.home import Home
from appliance.ops import jobs
from appliance.security import keys
from appliance.serve import client

SECRET_WORD = "zanzibar-secret-word"
ENDLESS = support.ENDLESS


class Site:
    """A home with a running endpoint and clients of it."""

    def __init__(self, home: Home, job: jobs.JobView, url: str, key: str) -> None:
        self.home, self.job, self.url, self.key = home, job, url, key
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        self.http = httpx.Client(
            base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        )

    def chat(self, text: str, **more: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return self.openai.chat.completions.create(model=support.NAME, messages=messages, **more)

    def figures(self) -> dict[str, Any]:
        return jobs.view(self.home, self.job.id).last


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = support.new_home(tmp_path_factory.mktemp("home"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    with support.endpoint(home, threads=1) as (job, url, key):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        site = Site(home, job, url, key)
        yield site
        site.http.close()
        site.openai.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same model on the other engine."""
    home = support.new_home(tmp_path_factory.mktemp("other"))
    with support.endpoint(home, threads=1, engine="in-process") as (job, url, key):
        site = Site(home, job, url, key)
        yield site
        site.http.close()
        site.openai.close()


def test_ready_says_where_what_and_how(site: Site, other: Site) -> None:
    for here, engine in ((site, "native"), (other, "in-process")):
        event = support.ready(here.home, here.job.id)
        assert event["model"] == support.NAME
        assert event["engine"] == engine
        assert event["url"].startswith("http://127.0.0.1:")
    assert [model.id for model in site.openai.models.list()] == [support.NAME]


def test_a_label_model_answers_with_one_of_its_labels(site: Site, other: Site) -> None:
    for text in support.TEXTS:
        ours = site.chat(text)
        assert ours.choices[0].message.content in support.LABELS
        assert ours.choices[0].finish_reason == "stop"
        found = ours.model_extra["cloister"]
        assert found["label"] == ours.choices[0].message.content
        assert 0 < found["confidence"] <= 1
        assert ours.usage.total_tokens == ours.usage.prompt_tokens + ours.usage.completion_tokens
        same = other.chat(text)
        assert same.choices[0].message.content == found["label"]
        assert same.model_extra["cloister"]["confidence"] == pytest.approx(found["confidence"], abs=1e-3)
        # The question as training put it, or with turns before it, is the same question.
        put = site.chat(support.TASK.question(text))
        # It goes on from what the first request computed, which rounds the odds a little differently.
        assert put.model_extra["cloister"]["label"] == found["label"]
        assert put.model_extra["cloister"]["confidence"] == pytest.approx(found["confidence"], abs=1e-4)


def test_a_label_model_writes_text_when_asked(site: Site, other: Site) -> None:
    for text in support.TEXTS[:3]:
        question = support.TASK.question(text)
        free = [here.chat(question, response_format={"type": "text"}, max_tokens=8) for here in (site, other)]
        assert free[0].choices[0].message.content == free[1].choices[0].message.content != ""
        assert not free[0].choices[0].message.content.startswith(" ")
        assert "label" not in free[0].model_extra["cloister"]
        assert free[0].usage.completion_tokens <= 8


def test_streams_are_what_the_client_expects(site: Site) -> None:
    settings = {"response_format": {"type": "text"}, **ENDLESS}
    chunks = list(site.chat("hello", stream=True, stream_options={"include_usage": True}, **settings))
    whole = site.chat("hello", **settings)  # the very answer again, from the cache
    assert whole.model_extra["cloister"]["cached"] == "exact"
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert len(deltas) > 4
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert whole.usage.prompt_tokens_details.cached_tokens == whole.usage.prompt_tokens
    assert len({chunk.id for chunk in chunks}) == 1
    label = list(site.chat(support.TEXTS[0], stream=True))
    assert label[-1].model_extra["cloister"]["label"] in support.LABELS
    raw = site.http.post(
        "/chat/completions",
        json={"model": support.NAME, "messages": [{"role": "user", "content": "x"}], "stream": True},
    )
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.text.endswith("data: [DONE]\n\n")


def test_completions_continue_a_text(site: Site, other: Site) -> None:
    ask = {"model": support.NAME, "prompt": "My knee", "max_tokens": 10}
    ours, theirs = (here.openai.completions.create(**ask) for here in (site, other))
    assert ours.choices[0].text == theirs.choices[0].text != ""
    assert ours.usage == theirs.usage
    streamed = list(site.openai.completions.create(stream=True, **ask))
    assert "".join(chunk.choices[0].text for chunk in streamed) == ours.choices[0].text
    stopped = site.openai.completions.create(stop=[ours.choices[0].text[2:4]], **ask)
    assert stopped.choices[0].text == ours.choices[0].text[:2]
    assert stopped.choices[0].finish_reason == "stop"


def test_no_key_no_answer(site: Site) -> None:
    bad = openai.OpenAI(base_url=f"{site.url}/v1", api_key="clo_00000000_" + "0" * 43, max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        bad.models.list()
    with pytest.raises(openai.AuthenticationError):
        bad.completions.create(model=support.NAME, prompt="x")
    bad.close()
    for header in ({}, {"Authorization": site.key}, {"Authorization": f"Basic {site.key}"}):
        answer = httpx.get(f"{site.url}/v1/models", headers=header, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert httpx.get(f"{site.url}/health", trust_env=False).json() == {"status": "ok"}


def test_keys_work_and_end_at_once(site: Site) -> None:
    key_id, key = keys.new_key(site.home, "late", "tests")
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{site.url}/v1/models", headers=headers, trust_env=False).status_code == 200
    keys.revoke(site.home, key_id, "tests")
    assert httpx.get(f"{site.url}/v1/models", headers=headers, trust_env=False).status_code == 401


def test_a_prompt_that_is_too_long_is_refused_with_counts(site: Site, other: Site) -> None:
    for here in (site, other):
        for more in ({}, {"response_format": {"type": "text"}}):
            with pytest.raises(openai.BadRequestError) as caught:
                here.chat("knee " * 600, **more)
            assert caught.value.code == "context_length_exceeded"
            assert "tokens" in caught.value.message
            assert "6" in caught.value.message


def test_wrong_requests_have_openai_shaped_errors(site: Site) -> None:
    message = {"role": "user", "content": "x"}
    ask = {"model": support.NAME, "messages": [message]}
    cases: list[tuple[int, str, bytes | str]] = [
        (400, "/chat/completions", b"{"),
        (400, "/chat/completions", b"[" * 100_000),
        (400, "/chat/completions", b"\xff\xfe"),
        (400, "/chat/completions", json.dumps({**ask, "logprobs": True})),
        (400, "/completions", json.dumps(ask)),
        (404, "/chat/completions", json.dumps({**ask, "model": "gpt-4"})),
        (404, "/embeddings", json.dumps({"model": support.NAME, "input": "x"})),
        (413, "/chat/completions", b"x" * 1_100_000),
    ]
    for status, path, body in cases:
        answer = site.http.post(path, content=body)
        assert answer.status_code == status, (path, body[:40])
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert site.http.get("/chat/completions").status_code == 405


def test_an_overlong_header_is_refused(site: Site) -> None:
    address = httpx.URL(site.url)
    with socket.create_connection((address.host, address.port), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 70_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_an_endpoint_may_open_as_many_files_as_the_system_allows(site: Site) -> None:
    process, _ = support.processes(site.job)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard


def test_eight_streams_at_once_all_finish(site: Site, other: Site) -> None:
    def one(here: Site, number: int) -> tuple[str, str]:
        found, last = "", None
        ask = {**ENDLESS, "seed": number, "max_tokens": 60}
        for chunk in here.chat(support.TEXTS[number], stream=True, response_format={"type": "text"}, **ask):
            found += chunk.choices[0].delta.content or ""
            last = chunk.choices[0].finish_reason or last
        return found, last or "none"

    with ThreadPoolExecutor(16) as pool:
        ours = [pool.submit(one, site, number) for number in range(8)]
        theirs = [pool.submit(one, other, number) for number in range(8)]
        for found in ours + theirs:
            text, last = found.result(30)
            assert text
            assert last in ("stop", "length")


def test_a_client_that_leaves_ends_the_work(site: Site, other: Site) -> None:
    """Sixteen long answers are begun and left: 6,400 tokens, of which few may be made."""
    for here in (site, other):
        support.until(lambda here=here: here.figures().get("active") == 0, 60)
        before = here.figures()["tokens"]
        for stream in (True, False):
            for _ in range(8):
                body = json.dumps(
                    {"model": support.NAME, "prompt": "knee", "stream": stream, **ENDLESS}
                ).encode()
                head = (
                    f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {here.key}\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                ).encode()
                address = httpx.URL(here.url)
                with socket.create_connection((address.host, address.port)) as connection:
                    connection.sendall(head + body)
                    if stream:
                        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert here.chat("thanks!").choices[0].message.content in support.LABELS
        support.until(lambda here=here: here.figures().get("active") == 0, 60)
        assert here.figures()["tokens"] - before < 1600


def test_a_killed_engine_costs_one_answer(site: Site) -> None:
    _, server = support.processes(site.job)
    answer = site.chat("x", stream=True, response_format={"type": "text"}, **ENDLESS)
    next(answer)
    server.kill()
    with pytest.raises(openai.APIError, match="does not answer"):
        list(answer)
    assert site.chat("thanks!").choices[0].message.content in support.LABELS
    support.until(lambda: site.figures().get("restarts") == 1)
    assert "signal 9" in str(jobs.view(site.home, site.job.id).events)


def test_our_own_client(site: Site) -> None:
    messages = [{"role": "user", "content": support.TEXTS[0]}]
    reply = client.ask(site.url, site.key, support.NAME, messages)
    assert reply.label == reply.text
    assert "".join(client.stream(site.url, site.key, support.NAME, messages)) == reply.text
    with pytest.raises(client.ConfigWrong, match="key"):
        client.ask(site.url, "wrong", support.NAME, messages)
    with pytest.raises(client.ConfigWrong, match="tokens"):
        list(client.stream(site.url, site.key, support.NAME, [{"role": "user", "content": "knee " * 600}]))
    with pytest.raises(client.EngineFailed):
        client.ask("http://127.0.0.1:1", site.key, support.NAME, messages)


def test_no_text_of_a_request_is_kept_anywhere(site: Site, other: Site) -> None:
    for here in (site, other):
        here.chat(SECRET_WORD)
        here.chat(SECRET_WORD, response_format={"type": "text"}, max_tokens=3)
        with pytest.raises(openai.BadRequestError):
            here.chat(SECRET_WORD * 200)
        here.http.post("/chat/completions", content=SECRET_WORD.encode())
        here.http.post("/chat/completions", json={SECRET_WORD: SECRET_WORD})
        here.http.get(f"/{SECRET_WORD}")
        for path in here.home.path.rglob("*"):
            assert not path.is_file() or SECRET_WORD.encode() not in path.read_bytes(), path


def test_progress_comes_at_most_once_a_second(site: Site) -> None:
    support.until(lambda: site.figures().get("requests", 0) > 10)
    events = [event for event in jobs.view(site.home, site.job.id).events if event["event"] == "progress"]
    times = [event["at"] for event in events]
    assert len({at[:19] for at in times}) >= len(times) - 1
    assert {"requests", "tokens", "tokens_per_second", "first_token_p50_ms", "active"} <= set(events[-1])
