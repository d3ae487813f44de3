"""The log of searches: counted once whoever counts, forgotten in time, and never in a search's way."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import grpc
import pytest
from polymart.search.v1 import search_service_pb2 as pb

from chassis.clock import ManualClock
from chassis.errors import Unavailable
from search_svc.adapters.elastic_search_log import ALIAS, ElasticSearchLog
from search_svc.adapters.engine import Engine
from search_svc.application.search_log import SUGGESTED_FROM, SearchCounts
from search_svc.domain.suggestion import SearchedText, kept
from tests.conftest import free_port, until
from tests.integration.search.support import LIMIT, Search, product, refusal, updated

DAY = date(2026, 1, 10)
NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


def counts(*entries: tuple[str, int, int]) -> dict[str, SearchedText]:
    return {text: SearchedText(text, *numbers) for text, *numbers in entries}


async def read(engine: Engine, since: date = DAY, *, without_hits: bool = False, most: int = 50) -> list[SearchedText]:
    await engine.client.indices.refresh(index=ALIAS)
    return list(await ElasticSearchLog(engine, "reader").read(since, without_hits=without_hits, most=most))


async def test_each_process_counts_for_itself_and_a_write_again_changes_nothing(engine: Engine) -> None:
    one, other = ElasticSearchLog(engine, "one"), ElasticSearchLog(engine, "other")
    assert await one.read(DAY, without_hits=False, most=5) == []
    # Both make the index.
    await asyncio.gather(one.write(DAY, counts(("mug", 2, 0))), other.write(DAY, counts(("mug", 5, 1), ("cup", 1, 1))))
    await one.write(DAY, counts(("mug", 3, 0), ("jug", 9, 9)))
    await one.write(DAY, counts(("mug", 3, 0), ("jug", 9, 9)))
    await other.write(DAY - timedelta(days=1), counts(("mug", 100, 0)))
    assert await read(engine) == [SearchedText("jug", 9, 9), SearchedText("mug", 8, 1), SearchedText("cup", 1, 1)]
    assert (await read(engine, DAY - timedelta(days=1)))[0] == SearchedText("mug", 108, 1)
    assert [each.text for each in await read(engine, without_hits=True)] == ["jug", "cup", "mug"]
    assert len(await read(engine, most=2)) == 2


async def test_what_is_old_or_too_much_is_forgotten(engine: Engine) -> None:
    log = ElasticSearchLog(engine, "one")
    await log.forget(DAY, 5)
    for back in range(6):
        await log.write(DAY - timedelta(days=back), counts((f"a{back}", 1, 0), (f"b{back}", 1, 0)))
    await log.forget(DAY - timedelta(days=3), 100)
    assert len(await read(engine, DAY - timedelta(days=9))) == 8
    await log.forget(DAY - timedelta(days=3), 5)
    assert {each.text for each in await read(engine, DAY - timedelta(days=9))} == {"a0", "b0", "a1", "b1"}


async def test_counts_outlive_an_outage_and_a_day(engine: Engine) -> None:
    clock = ManualClock(NOON)
    gone = Engine(f"http://127.0.0.1:{free_port()}")
    await gone.open()
    searches = SearchCounts(ElasticSearchLog(gone, "one"), clock)
    searches.note(" Red   MUG ", found=True)
    with pytest.raises(Unavailable):
        await searches.flush()
    await gone.close()
    searches.note("red mug", found=False)
    searches._store = ElasticSearchLog(engine, "one")
    clock.advance(timedelta(days=1))
    searches.note("red mug", found=True)
    await searches.flush()
    await engine.client.indices.refresh(index=ALIAS)
    assert await searches.top(2, without_hits=False, most=5) == [SearchedText("red mug", 3, 1)]
    assert await searches.top(1, without_hits=False, most=5) == [SearchedText("red mug", 1, 0)]


async def test_only_what_many_searched_for_and_found_is_popular(engine: Engine) -> None:
    searches = SearchCounts(ElasticSearchLog(engine, "one"), ManualClock(NOON))
    for text, times, found in (
        ("popular", SUGGESTED_FROM, True),
        ("rare", SUGGESTED_FROM - 1, True),
        ("missing", SUGGESTED_FROM, False),
    ):
        for _ in range(times):
            searches.note(text, found=found)
    await searches.flush()
    await engine.client.indices.refresh(index=ALIAS)
    await searches.refresh()
    assert searches.popular == ["popular"]


async def test_a_day_has_so_many_texts_and_no_more(engine: Engine) -> None:
    searches = SearchCounts(ElasticSearchLog(engine, "one"), ManualClock(NOON))
    for n in range(5_100):
        searches.note(f"text w{n}", found=True)
    searches.note("text w0", found=True)
    await searches.flush()
    await engine.client.indices.refresh(index=ALIAS)
    assert (await engine.client.count(index=ALIAS))["count"] == 5_000
    assert await searches.top(1, without_hits=False, most=1) == [SearchedText("text w0", 2, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "me@example.org", "mail to me@example.org please", "+44 20 7946 0958", "(020) 7946-0958", "4111 1111 1111 1111",
        "4111-1111-1111-1111", "4006381333931", "x" * 101, "", "!!!", "a\x00b",
    ],
)  # fmt: skip
def test_what_might_say_who_somebody_is_is_not_kept(text: str) -> None:
    assert kept(text) == ""


def test_what_is_kept_is_one_text_however_it_is_written() -> None:
    assert {kept("USB-C  Cable"), kept(" usb-c cable"), kept("ＵＳＢ-c cable")} == {"usb-c cable"}
    assert kept("iphone 15 128 gb") == "iphone 15 128 gb"


async def test_searches_are_listed_and_pages_count_once(
    start_search: Callable[..., Awaitable[Search]], fresh_search: str
) -> None:
    one, other = await start_search(fresh_search), await start_search(fresh_search)
    await one.publish(*updated(*(product(f"p{n}", "Red mug") for n in range(5))))
    await one.handled()
    token = (await one.find("Red MUG", page_size=2)).next_page_token
    await one.find("Red MUG", page_size=2, page_token=token)
    await other.find("red mug")
    await other.find("zzzzzz")
    await other.find("me@example.org")
    await other.find()

    async def listed(**request: object) -> list[tuple[str, int, int]]:
        answer = await one.stub.ListSearchedTexts(pb.ListSearchedTextsRequest(**request), timeout=LIMIT)
        return [(each.text, each.searches, each.searches_without_hits) for each in answer.texts]

    async def all_are_there() -> bool:
        try:
            return await listed() == [("red mug", 2, 0), ("zzzzzz", 1, 1)]
        except grpc.aio.AioRpcError as error:
            # The log's index may be in the making.
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False

    await until(all_are_there, 20)
    assert await listed(without_hits=True, days=1, page_size=5) == [("zzzzzz", 1, 1)]
    too_long = one.stub.ListSearchedTexts(pb.ListSearchedTextsRequest(days=31, page_size=-1), timeout=LIMIT)
    assert await refusal(too_long) == ("INVALID_ARGUMENT", {"days", "page_size"})
