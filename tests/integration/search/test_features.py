"""Each flag of an engine tells the truth, on each engine."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from elasticsearch import ApiError

from chassis.errors import Unavailable
from search_svc.adapters.engine import Engine
from search_svc.adapters.features import Features, features_of
from tests.conftest import free_port

INDEX = "products-of-a-test"


@pytest.fixture
async def features(engine: Engine) -> Features:
    return await engine.features()


@pytest.fixture
async def made(engine: Engine) -> AsyncIterator[Engine]:
    """An engine with an index of a few fields."""
    analysis = {
        "filter": {"same": {"type": "synonym_graph", "synonyms": ["ssd, solid state drive"]}},
        "normalizer": {"code": {"type": "custom", "filter": ["lowercase"]}},
        "analyzer": {"asked": {"type": "custom", "tokenizer": "standard", "filter": ["lowercase", "same"]}},
    }
    properties: dict[str, Any] = {
        "name": {"type": "text", "analyzer": "standard", "search_analyzer": "asked"},
        "plain": {"type": "text"},
        "code": {"type": "keyword", "normalizer": "code"},
        "word": {"type": "keyword"},
        "number": {"type": "long"},
    }
    settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1", "analysis": analysis}
    await engine.client.indices.create(index=INDEX, settings=settings, mappings={"properties": properties})
    yield engine
    await engine.client.indices.delete(index=INDEX)


async def put(engine: Engine, *documents: dict[str, Any], refresh: bool = True) -> None:
    for number, document in enumerate(documents):
        await engine.client.index(index=INDEX, id=str(number), document=document, refresh=refresh)


async def found(engine: Engine, query: dict[str, Any]) -> set[str]:
    return {hit["_id"] for hit in (await engine.client.search(index=INDEX, query=query))["hits"]["hits"]}


async def test_an_engine_is_told_by_its_own_answer(
    engine: Engine, features: Features, request: pytest.FixtureRequest
) -> None:
    if not request.getfixturevalue("search_engine").external:
        assert features.kind == request.node.callspec.params["search_engine"]
    assert features.version == (await engine.client.info())["version"]["number"]
    assert await engine.features() is features


def test_an_engine_that_is_not_known_is_taken_for_elasticsearch() -> None:
    assert features_of({"version": {"number": "9.5.1", "build_flavor": "default"}}) == Features(
        "elasticsearch", "9.5.1"
    )
    assert features_of({}) == Features("elasticsearch", "")


async def test_what_an_engine_can_do_is_not_known_while_it_cannot_be_reached() -> None:
    engine = Engine(f"http://127.0.0.1:{free_port()}")
    await engine.open()
    with pytest.raises(Unavailable):
        await engine.features()
    await engine.close()


async def test_what_is_written_is_seen_by_searches_after_a_refresh_or_at_once(made: Engine, features: Features) -> None:
    await put(made, {"word": "a"}, refresh=False)
    assert await found(made, {"term": {"word": "a"}}) == (set() if features.refresh else {"0"})
    await made.client.indices.refresh(index=INDEX)
    assert await found(made, {"term": {"word": "a"}}) == {"0"}


async def test_synonyms_of_several_words(made: Engine, features: Features) -> None:
    await put(made, {"name": "Fast SSD"}, {"name": "Solid state drive"}, {"name": "Cable"})
    asked = [
        await found(made, {"match": {"name": {"query": text, "operator": "and"}}})
        for text in ("ssd", "solid state drive")
    ]
    assert (asked == [{"0", "1"}] * 2) == features.multi_word_synonyms


async def test_a_phrase_suggester_that_leaves_out_what_would_find_nothing(made: Engine, features: Features) -> None:
    await put(made, {"plain": "red mug"}, {"plain": "blue mug"}, {"plain": "blue cup"})
    collate = {"query": {"source": {"match_phrase": {"plain": "{{suggestion}}"}}}, "prune": True}
    generator = {"field": "plain", "min_word_length": 3, "suggest_mode": "always"}
    phrase = {"field": "plain", "confidence": 0, "max_errors": 2, "direct_generator": [generator], "collate": collate}
    suggest = {"text": "blue muk", "s": {"phrase": phrase}}
    try:
        answer = await made.client.search(index=INDEX, suggest=suggest)
        options = answer["suggest"]["s"][0]["options"]
        right = [option["text"] for option in options if option.get("collate_match")] == ["blue mug"]
    except ApiError:
        right = False
    assert right == features.collate


async def test_buckets_of_a_keyword_with_a_normalizer(made: Engine, features: Features) -> None:
    await put(made, {"code": "AB"}, {"code": "ab"})
    counted = {"codes": {"terms": {"field": "code"}}}
    answer = await made.client.search(index=INDEX, aggregations=counted)
    keys = {bucket["key"] for bucket in answer["aggregations"]["codes"]["buckets"]}
    assert (keys == {"ab"}) == features.normalized_buckets


async def test_a_script_that_scores_by_a_formula_runs_everywhere(made: Engine) -> None:
    await put(made, {"number": 1}, {"number": 3})
    scored = {"script_score": {"query": {"match_all": {}}, "script": {"source": "doc['number'].value * 2"}}}
    hits = (await made.client.search(index=INDEX, query=scored))["hits"]["hits"]
    assert [(hit["_id"], hit["_score"]) for hit in hits] == [("1", 6.0), ("0", 2.0)]


async def test_a_script_that_changes_a_document(made: Engine, features: Features) -> None:
    await put(made, {"number": 3})
    try:
        await made.client.update(index=INDEX, id="0", script={"source": "ctx._source.number += 2"})
        right = (await made.client.get(index=INDEX, id="0"))["_source"] == {"number": 5}
    except ApiError:
        right = False
    assert right == features.scripts


async def test_scores_are_compared_as_they_are_shown(made: Engine, features: Features) -> None:
    await put(made, *({"plain": "mug " + "and more " * n, "word": f"{n:03}"} for n in range(40)))
    query = {"match": {"plain": "mug"}}
    sort = [{"_score": "desc"}, {"word": "asc"}]
    first = (await made.client.search(index=INDEX, query=query, sort=sort, size=40))["hits"]["hits"]
    again = [
        (await made.client.search(index=INDEX, query=query, sort=sort, size=1, search_after=hit["sort"]))["hits"][
            "hits"
        ][:1]
        for hit in first[:-1]
    ]
    right = [hits[0]["_id"] if hits else None for hits in again] == [hit["_id"] for hit in first[1:]]
    assert right == features.shown_scores


async def test_a_keyword_that_is_too_long(made: Engine, features: Features) -> None:
    try:
        await put(made, {"word": "x" * 32_767})
        refused = False
    except ApiError:
        refused = True
    assert refused == features.keyword_limit
