from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from appliance.serve import cache as caching
from appliance.serve.answers import Part
from appliance.serve.cache import Answer, Asked, Cache, asked, whole
from appliance.serve.engine import Piece, Settings
from appliance.serve.labels import Labelled
from appliance.serve.requests import Ask
from appliance.serve.shapes import Shape

ASK = Ask(
    model="route",
    settings=Settings(max_tokens=16),
    stream=False,
    usage=False,
    messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the dose?"}),
)
WHO = {"scope": "key1", "model": "m", "sha256": "aa", "documents": "policies@3"}
ANSWER = Answer(text="Two tablets.", finish="stop", prompt_tokens=9, completion_tokens=4, seconds=0.25)


def of(ask: Ask = ASK, **who: str) -> Asked:
    found = asked(ask, **{**WHO, **who})
    assert found is not None
    return found


def found(cache: Cache, asked: Asked) -> Answer | None:
    hit = cache.get(asked)
    return hit.answer if hit else None


def say(text: str, ask: Ask = ASK) -> Ask:
    return replace(ask, messages=(*ask.messages[:-1], {"role": "user", "content": text}))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_same_request_of_the_same_key_hits_and_is_counted() -> None:
    cache = Cache()
    assert found(cache, of()) is None
    cache.put(of(), ANSWER)
    assert found(cache, of()) == ANSWER
    facts = cache.facts()
    assert (facts["hits"], facts["misses"], facts["hit_rate"]) == (1, 1, 0.5)
    assert (facts["prompt_tokens_saved"], facts["tokens_saved"], facts["seconds_saved"]) == (9, 4, 0.25)
    assert facts["bytes"] == ANSWER.size


@pytest.mark.parametrize("what", sorted(WHO))
def test_nothing_crosses_keys_models_files_or_documents(what: str) -> None:
    cache = Cache(near=True)
    near = asked(ASK, **WHO, near=True)
    assert near is not None
    cache.put(near, ANSWER)
    other = asked(ASK, **{**WHO, what: "another"}, near=True)
    assert other is not None
    assert found(cache, other) is None and found(cache, near) == ANSWER


def test_scope_and_model_cannot_run_into_each_other() -> None:
    assert of(scope="ab", model="c").key != of(scope="a", model="bc").key


def test_everything_that_makes_the_answer_is_in_the_key() -> None:
    others = [
        say("What is the dose!"),
        replace(ASK, messages=ASK.messages[1:]),
        replace(ASK, form="text"),
        replace(ASK, prompt="What is the dose?", messages=()),
        *(replace(ASK, settings=replace(ASK.settings, **change)) for change in (
            {"max_tokens": 17}, {"stop": ("x",)}, {"temperature": 0.5, "seed": 1},
            {"temperature": 0.5, "seed": 2}, {"temperature": 0.6, "seed": 2},
            {"temperature": 0.5, "seed": 1, "top_p": 0.5},
        )),
    ]  # fmt: skip
    keys = [of(other).key for other in (ASK, *others)]
    assert len(set(keys)) == len(keys)


def test_how_it_is_sent_and_what_decides_nothing_is_not_in_the_key() -> None:
    same = [
        replace(ASK, stream=True, usage=True, model="another name"),
        replace(ASK, settings=replace(ASK.settings, top_p=0.3, seed=5)),  # at temperature 0
        say("  What is the dose?\n"),
    ]
    assert {of(other).key for other in same} == {of().key}
    assert of(say("caf\u00e9")).key == of(say("cafe\u0301")).key


def test_a_field_that_requests_get_later_is_in_the_key_by_itself() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(Ask):
        mood: tuple[str, ...] = ()

    values: dict[str, Any] = {field.name: getattr(ASK, field.name) for field in dataclasses.fields(ASK)}
    assert of(Later(**values, mood=("a",))).key != of(Later(**values, mood=("b",))).key


def test_answers_drawn_by_chance_are_not_kept() -> None:
    drawn = replace(ASK, settings=replace(ASK.settings, temperature=0.7))
    assert asked(drawn, **WHO) is None
    assert asked(replace(drawn, settings=replace(drawn.settings, seed=0)), **WHO) is not None


def test_memory_is_bounded_and_the_least_used_go_first() -> None:
    asks = [of(say(f"question {number}")) for number in range(4)]
    cache = Cache(most_bytes=3 * ANSWER.size)
    for one in asks[:3]:
        cache.put(one, ANSWER)
    assert found(cache, asks[0]) == ANSWER  # used again, so the second goes
    cache.put(asks[3], ANSWER)
    assert [found(cache, one) is not None for one in asks] == [True, False, True, True]
    assert cache.facts()["bytes"] == 3 * ANSWER.size
    huge = replace(ANSWER, text="x" * 4 * ANSWER.size)
    cache.put(asks[1], huge)
    assert found(cache, asks[1]) is None and cache.facts()["entries"] == 3


def test_old_answers_go_and_leave_nothing_behind() -> None:
    clock = Clock()
    cache = Cache(most_seconds=10, clock=clock, near=True)
    one = asked(say("What is the usual dose of insulin?"), **WHO, near=True)
    two = asked(say("What is the usual dose of aspirin?"), **WHO, near=True)
    assert one is not None and two is not None
    cache.put(one, ANSWER)
    clock.now = 6
    cache.put(two, ANSWER)
    clock.now = 11
    assert found(cache, two) == ANSWER  # used last, but the other one is the older
    cache.sweep()
    assert cache.facts()["entries"] == 1
    clock.now = 17
    assert found(cache, two) is None and found(cache, one) is None
    assert cache.facts()["bytes"] == 0 and cache.facts()["entries"] == 0
    assert cache._near is not None and cache._near._found == {}  # questions are patient text too


def test_putting_again_replaces() -> None:
    cache = Cache()
    cache.put(of(), ANSWER)
    cache.put(of(), replace(ANSWER, text="Three."))
    kept = found(cache, of())
    assert kept is not None and kept.text == "Three." and cache.facts()["entries"] == 1


def test_a_model_or_all_can_be_dropped() -> None:
    cache = Cache()
    cache.put(of(), ANSWER)
    cache.put(of(model="n"), ANSWER)
    assert cache.drop("m") == 1 and found(cache, of()) is None and found(cache, of(model="n")) == ANSWER
    assert cache.drop() == 1 and cache.facts()["bytes"] == 0


def test_near_match_is_off_unless_wanted() -> None:
    one, other = say("What is the usual dose of insulin?"), say("Please, what is the usual dose of insulin?")
    plain, near = Cache(), Cache(near=True)
    for cache in (plain, near):
        first = asked(one, **WHO, near=cache.near)
        second = asked(other, **WHO, near=cache.near)
        assert first is not None and second is not None
        cache.put(first, ANSWER)
        assert (found(cache, second) is not None) == cache.near
    assert near.facts()["near_hits"] == 1 and near.facts()["bytes"] > plain.facts()["bytes"]


@pytest.mark.parametrize(
    "change",
    [
        lambda ask: replace(ask, settings=replace(ask.settings, max_tokens=5)),
        lambda ask: replace(ask, form="text"),
        lambda ask: replace(ask, messages=({"role": "system", "content": "Rhyme."}, *ask.messages[1:])),
        lambda ask: replace(ask, messages=(ask.messages[0], ask.messages[1], *ask.messages[1:])),
        lambda ask: replace(ask, messages=(*ask.messages[:1], {**ask.messages[-1], "name": "Eve"})),
    ],
)  # fmt: skip
def test_near_match_needs_all_the_rest_equal(change: Any) -> None:
    cache = Cache(near=True)
    first = asked(say("What is the usual dose of insulin?"), **WHO, near=True)
    second = asked(change(say("Please, what is the usual dose of insulin?")), **WHO, near=True)
    assert first is not None and second is not None
    cache.put(first, ANSWER)
    assert found(cache, second) is None


def test_an_answer_comes_back_as_it_was_streamed_or_whole() -> None:
    label = Labelled(label="billing", confidence=0.75, tokens=2)
    parts = [
        Part(piece=Piece(text="Take ")),
        Part(piece=Piece(text="two.")),
        Part(
            piece=Piece(text="", finish="stop", prompt_tokens=7, completion_tokens=3, seconds=0.5),
            label=label,
        ),
    ]
    kept = whole(parts)
    assert kept is not None and kept.seconds == 0.5
    for chat in (True, False):
        shape = Shape(model="m", chat=chat, usage=True, id="x", created=1)
        first, again = shape.whole(parts), shape.whole(kept.parts())
        assert again["usage"].pop("prompt_tokens_details") == {"cached_tokens": 7}
        assert first["usage"].pop("prompt_tokens_details") == {"cached_tokens": 0}
        assert again == first
        stream = b"".join(shape.part(part) for part in kept.parts())
        assert (
            stream.endswith(b"data: [DONE]\n\n") and b"Take two." in stream and b'"total_tokens":10' in stream
        )


def test_an_answer_that_broke_off_is_none() -> None:
    assert whole([]) is None and whole([Part(piece=Piece(text="Take "))]) is None


def test_nothing_goes_to_disk() -> None:
    """Prompts are patient text: the two modules know no way to a file."""
    for module in ("cache", "near", "hashed"):
        text = (Path(caching.__file__).parent / f"{module}.py").read_text()
        for word in ("open(", "Path", "write", "sqlite", "logging", "print("):
            assert word not in text, (module, word)
