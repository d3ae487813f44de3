"""Many searches that wait share one look at the index, and refresh it only for what is there to be seen."""

import asyncio
from collections.abc import Mapping, Set

import pytest

from chassis.errors import DeadlineExceeded, Unavailable
from search_svc.application.freshness import Freshness
from tests.conftest import until


class Index:
    """What is written is seen after a refresh alone."""

    def __init__(self) -> None:
        self.name = "one"
        self.versions: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.refreshes = 0
        self.looks = 0
        self.away = False

    async def searched(self) -> str:
        if self.away:
            raise Unavailable("the engine is away")
        return self.name

    async def written(self, product_ids: Set[str]) -> Mapping[str, int]:
        return {key: self.versions[key] for key in product_ids & self.versions.keys()}

    async def shown(self, product_ids: Set[str]) -> Mapping[str, int]:
        self.looks += 1
        await asyncio.sleep(0)
        return {key: self.seen[key] for key in product_ids & self.seen.keys()}

    async def refresh_shown(self) -> None:
        self.refreshes += 1
        self.seen = dict(self.versions)


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
def freshness(index: Index) -> Freshness:
    return Freshness(index)


async def answer() -> str:
    return "answer"


async def test_what_searches_see_already_is_not_waited_for(index: Index, freshness: Freshness) -> None:
    index.seen["p"] = 3
    assert await freshness.read("p", 2, within=5, query=answer) == "answer"
    assert await freshness.read("p", 3, within=5, query=answer) == "answer"
    assert index.refreshes == 0


async def test_a_thousand_that_wait_share_a_refresh(index: Index, freshness: Freshness) -> None:
    waiting = [
        asyncio.create_task(freshness.read(f"p{n % 50}", 1 + n % 3, within=20, query=answer)) for n in range(1_000)
    ]
    await until(lambda: index.looks > 3)
    assert index.refreshes == 0
    index.versions = {f"p{n}": 3 for n in range(50)}
    assert await asyncio.gather(*waiting) == ["answer"] * 1_000
    assert index.refreshes == 1
    looks = index.looks
    for _ in range(100):
        await asyncio.sleep(0)
    assert index.looks == looks


async def test_what_does_not_come_in_time_is_said_and_the_others_wait_on(index: Index, freshness: Freshness) -> None:
    patient = asyncio.create_task(freshness.read("p", 1, within=20, query=answer))
    with pytest.raises(DeadlineExceeded) as late:
        await freshness.read("q", 1, within=0.2, query=answer)
    assert late.value.reason == "INDEX_BEHIND"
    index.versions["p"] = 1
    assert await patient == "answer"


async def test_an_answer_of_an_index_that_was_not_looked_at_is_not_given(index: Index, freshness: Freshness) -> None:
    """As where a rebuild ends between the two."""
    answers: list[str] = []
    index.seen["p"] = 1

    async def query() -> str:
        if not answers:
            index.name, index.seen, index.versions = "two", {}, {"p": 1}
        answers.append(index.name)
        return f"{index.seen}"

    assert await freshness.read("p", 1, within=5, query=query) == "{'p': 1}"
    assert answers == ["two", "two"]


async def test_an_outage_is_told_to_all_that_wait(index: Index, freshness: Freshness) -> None:
    waiting = [asyncio.create_task(freshness.read("p", 1, within=20, query=answer)) for _ in range(3)]
    await until(lambda: index.looks > 1)
    index.away = True
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, Unavailable)
    index.away = False
    index.seen["p"] = 1
    assert await freshness.read("p", 1, within=5, query=answer) == "answer"
