"""Watchers see every change, however slowly they take them and however the hints come."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from chassis.errors import NotFound, Unavailable
from chassis.money import Money
from order_svc.application.watching import OrderWatch
from order_svc.domain.order import (
    Event,
    Line,
    OrderConfirmed,
    OrderPaymentCaptured,
    OrderPlaced,
    OrderSettled,
    OrderStockCommitted,
    OrderStockReserved,
    Recorded,
)
from tests.conftest import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINES = (Line("MUG", 2, Money.parse("GBP", "2.55"), "mug", "Mug"),)
REST = [OrderStockReserved(), OrderConfirmed(), OrderStockCommitted(), OrderPaymentCaptured(), OrderSettled()]


class Store:
    def __init__(self) -> None:
        self.orders: dict[str, list[Recorded]] = {}
        self.reads = 0
        self.down = False

    def add(self, order_id: str, *events: Event) -> None:
        history = self.orders.setdefault(order_id, [])
        history.extend(Recorded(len(history) + n, NOW, event) for n, event in enumerate(events, 1))

    async def versions(self, order_ids: Collection[str]) -> Mapping[str, int]:
        return {id: len(self.orders[id]) for id in order_ids if id in self.orders}

    async def histories(self, order_ids: Collection[str]) -> Mapping[str, Sequence[Recorded]]:
        self.reads += 1
        if self.down:
            raise Unavailable("down")
        return {id: tuple(self.orders[id]) for id in order_ids if id in self.orders}


@pytest.fixture
def store() -> Store:
    store = Store()
    store.add("order", OrderPlaced("", LINES, LINES[0].total, "tok", NOW))
    return store


@asynccontextmanager
async def running(store: Store, poll: float) -> AsyncIterator[OrderWatch]:
    watch = OrderWatch(poll=poll)
    watch.reads(store)
    task = asyncio.create_task(watch.run())
    yield watch
    await watch.stop()
    await asyncio.wait_for(task, 5)


async def versions(watch: OrderWatch, after: int = 0) -> list[int]:
    return [order.version async for order in watch.watch("order", after)]


async def test_a_slow_watcher_misses_nothing(store: Store) -> None:
    async with running(store, poll=0.005) as watch:
        slow = watch.watch("order")
        assert (await anext(slow)).version == 1
        store.add("order", *REST[:2])
        assert (await anext(slow)).version == 2
        store.add("order", *REST[2:])
        # All of it is known by now to somebody else, settled, while the slow one is at its second state.
        assert (await asyncio.wait_for(versions(watch, after=5), 5)) == [6]
        assert [order.version async for order in slow] == [3, 4, 5, 6]


async def test_many_watchers_share_one_read(store: Store) -> None:
    async with running(store, poll=60) as watch:
        watchers = [asyncio.create_task(versions(watch)) for _ in range(50)]
        await until(lambda: store.reads == 50)
        store.add("order", *REST)
        watch.changed(["order", "another"])
        assert await asyncio.wait_for(asyncio.gather(*watchers), 5) == [[1, 2, 3, 4, 5, 6]] * 50
        assert store.reads == 51
        assert watch.idle


async def test_a_change_nobody_hinted_at_is_found_even_while_hints_keep_coming(store: Store) -> None:
    store.add("busy", OrderPlaced("", LINES, LINES[0].total, "tok", NOW))
    async with running(store, poll=0.02) as watch:
        busy = watch.watch("busy")
        await anext(busy)
        task = asyncio.create_task(versions(watch))
        store.add("order", *REST)
        while not task.done():
            watch.changed(["busy"])
            await asyncio.sleep(0)
        assert (await task)[-1] == 6
        await busy.aclose()


async def test_a_store_that_is_down_for_a_while_only_delays(store: Store) -> None:
    async with running(store, poll=0.005) as watch:
        task = asyncio.create_task(versions(watch))
        await until(lambda: store.reads)
        store.down = True
        store.add("order", *REST)
        seen = store.reads
        await until(lambda: store.reads >= seen + 3)
        with pytest.raises(Unavailable):
            await versions(watch)
        store.down = False
        assert (await asyncio.wait_for(task, 5))[-1] == 6


async def test_an_order_nobody_placed_is_not_found(store: Store) -> None:
    async with running(store, poll=60) as watch:
        with pytest.raises(NotFound):
            await anext(watch.watch("nobody"))
        assert watch.idle
