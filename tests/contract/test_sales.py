"""What every store of the window's orders does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from chassis.errors import Unavailable
from chassis.ids import uuid7
from search_svc.adapters.elastic_sales import ElasticSales
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.memory_index import MemoryIndex
from search_svc.adapters.memory_sales import MemorySales
from search_svc.adapters.popularity_documents import SALES
from search_svc.application.ports import Index, IndexMissing, Sales, Units, Write
from search_svc.domain.popularity import Popularity, PopularityRecord, Sale, Sold
from tests.conftest import SEARCH_ENGINES, emptied, free_port
from tests.unit.search import strategies as some

QUICK = settings(
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=60,
)


@dataclass
class Store:
    """Not prepared yet. `lose` takes the orders away, and whatever stands beside them."""

    sales: Sales
    index: Index
    lose: Callable[[], Awaitable[None]]


@pytest.fixture(params=["memory", *SEARCH_ENGINES])
def server(request: pytest.FixtureRequest) -> str | None:
    """The URL of an engine without an index; None stands for the double."""
    return None if request.param == "memory" else emptied(request.getfixturevalue(request.param))


@pytest.fixture
async def store(server: str | None) -> AsyncIterator[Store]:
    if server is None:
        index = MemoryIndex()
        sales = MemorySales(index)

        async def lose() -> None:
            sales.lose()

        yield Store(sales, index, lose)
        return
    engine = Engine(server)
    await engine.open()

    async def delete() -> None:
        await engine.client.indices.delete(index=f"{SALES}-000001")

    # Of the product index nothing is there, but popularity is apart from it.
    yield Store(ElasticSales(engine, page=1_000), Indices(engine).index(1, "none"), delete)
    await engine.close()


@pytest.fixture
async def prepared(store: Store) -> Store:
    assert await store.sales.prepare()
    return store


async def add(store: Store, *sales: Sale) -> None:
    assert await store.sales.orders.write([Write(sale.order_id, sale, None) for sale in sales]) == set()
    await store.sales.refresh()


def sale(order_id: str, confirmed: int, *lines: Sold, cancelled: int = 0) -> Sale:
    return Sale(order_id, confirmed, lines, cancelled)


async def test_nothing_is_read_or_written_before_it_is_there(store: Store) -> None:
    for step in (store.sales.units(0), store.sales.take("a", 1), store.sales.filled(), store.sales.popular()):
        with pytest.raises(IndexMissing):
            await step
    assert await store.sales.prepare()
    assert not await store.sales.prepare()
    assert await store.sales.units(0) == Units({}, {})


async def test_units_are_those_of_orders_confirmed_since_then_that_were_not_cancelled(prepared: Store) -> None:
    await add(
        prepared,
        sale("before", 999, Sold("p", "", 100)),
        sale("at", 1000, Sold("p", "", 1), Sold("q", "", 2), Sold("", "s", 3)),
        sale("after", 2000, Sold("p", "", 10), Sold("", "s.1 ü", 20)),
        sale("cancelled", 2000, Sold("p", "", 100), cancelled=2001),
        Sale("cancelled first", cancelled=2001),
    )
    assert await prepared.sales.units(1000) == Units({"p": 11, "q": 2}, {"s": 3, "s.1 ü": 20})
    assert await prepared.sales.units(2001) == Units({}, {})


async def test_units_of_many_products_are_exact(prepared: Store) -> None:
    orders = [sale(f"o{n}", 1000, *(Sold(f"p{n}-{k}", "", k + 1) for k in range(25))) for n in range(100)]
    large = sale("large", 1000, Sold("p0-0", "", 2**40))
    await add(prepared, *orders, large)
    wanted = {f"p{n}-{k}": k + 1 for n in range(100) for k in range(25)} | {"p0-0": 2**40 + 1}
    assert (await prepared.sales.units(0)).by_product == wanted


async def test_orders_are_forgotten_by_the_time_that_counts(prepared: Store) -> None:
    await add(
        prepared,
        sale("old", 999, Sold("p", "", 1)),
        sale("old and cancelled", 999, Sold("p", "", 1), cancelled=5000),
        Sale("cancelled alone", cancelled=999),
        sale("new", 1000, Sold("p", "", 1)),
        Sale("cancelled of late", cancelled=1000),
    )
    assert await prepared.sales.take("holder", 60)
    await prepared.sales.forget(1000)
    keys = ["old", "old and cancelled", "cancelled alone", "new", "cancelled of late"]
    assert (await prepared.sales.orders.read(keys)).keys() == {"new", "cancelled of late"}
    assert not await prepared.sales.take("another", 60)


async def test_one_holder_at_a_time_has_the_lease_until_it_ends(prepared: Store) -> None:
    sales = prepared.sales
    taken = await asyncio.gather(*(sales.take(f"holder {n}", 60) for n in range(10)))
    assert taken.count(True) == 1
    holder = f"holder {taken.index(True)}"
    assert not await sales.renew("next", 60)
    assert await sales.renew(holder, 0.0)
    assert await sales.take("next", 60)
    assert await sales.renew("next", 60)
    assert not await sales.take(holder, 60)
    assert not await sales.renew(holder, 60)
    assert not await sales.complete(holder)
    assert not await sales.filled()
    assert not await sales.computed(holder, 7)
    assert await sales.computed("next", 7)
    assert await sales.complete("next")
    assert await sales.filled()
    assert await sales.take("next", 0.0)
    assert await sales.take(holder, 60)
    assert await sales.filled()


async def test_what_is_lost_is_not_filled_and_nobody_s(prepared: Store) -> None:
    sales = prepared.sales
    await add(prepared, sale("o", 1000, Sold("p", "", 1)))
    assert await sales.take("a", 60)
    assert await sales.complete("a")
    await prepared.lose()
    with pytest.raises(IndexMissing):
        await sales.filled()
    assert await sales.prepare()
    assert not await sales.filled()
    assert not await sales.complete("a")
    assert not await sales.computed("a", 7)
    assert not await sales.renew("a", 60)
    assert await sales.take("b", 60)
    assert (await sales.units(0)).by_product == {}


async def test_popular_is_what_is_recorded_above_zero(prepared: Store) -> None:
    many = [PopularityRecord(f"p{n:04}", Popularity(1 + n % 3, n)) for n in range(1_500)]
    none = PopularityRecord("none", Popularity(0.0, 7))
    await prepared.index.popularity.write([Write(record.product_id, record, None) for record in (*many, none)])
    await prepared.sales.refresh()
    assert sorted(await prepared.sales.popular()) == [record.product_id for record in many]


@QUICK
@given(some.sales)
async def test_an_order_is_read_as_it_was_written(store: Store, sale: Sale) -> None:
    await store.sales.prepare()
    key = uuid7()
    await store.sales.orders.write([Write(key, replace(sale, order_id=key), None)])
    assert (await store.sales.orders.read([key]))[key].document == replace(sale, order_id=key)


@QUICK
@given(some.popularities)
async def test_a_popularity_is_read_as_it_was_written(store: Store, popularity: Popularity) -> None:
    await store.sales.prepare()
    record = PopularityRecord(uuid7(), popularity)
    await store.index.popularity.write([Write(record.product_id, record, None)])
    assert (await store.index.popularity.read([record.product_id]))[record.product_id].document == record


async def test_an_engine_that_cannot_be_reached_is_unavailable() -> None:
    engine = Engine(f"http://127.0.0.1:{free_port()}")
    await engine.open()
    sales = ElasticSales(engine)
    for step in (sales.prepare(), sales.units(0), sales.take("a", 1), sales.forget(1), sales.refresh()):
        with pytest.raises(Unavailable):
            await step
    await engine.close()
