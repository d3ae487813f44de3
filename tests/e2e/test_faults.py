"""What stays true while services and engines are killed under load."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic

import asyncpg
import pytest
from polymart.order.v1.order_pb2 import Order
from polymart.search.v1.search_service_pb2 import SearchProductsRequest

from devstack.stack import ALL_SERVICES
from tests.e2e.shop import TIMEOUT, Shop, until

OUTAGE = 5.0


async def settle(shop: Shop, orders: list[Order]) -> None:
    await asyncio.gather(*(shop.settled(order) for order in orders))
    await shop.invariants_hold()


async def test_orders_are_accepted_while_the_catalog_is_down(shop: Shop) -> None:
    skus = await shop.product(variants=3)
    await shop.settled(await shop.place(*skus))
    await shop.stack.kill_service("catalog_svc")
    try:
        orders = await shop.load(skus, 20)
        await asyncio.gather(*(shop.settled(order) for order in orders))
    finally:
        await shop.stack.restart_service("catalog_svc")
    await shop.invariants_hold()


async def test_orders_wait_for_payment_while_it_is_down(shop: Shop) -> None:
    skus = await shop.product(variants=3)
    await shop.stack.kill_service("payment_svc")
    try:
        orders = await shop.load(skus, 20)

        async def reserved() -> bool:
            return sum([(await shop.stock(sku)).reserved for sku in skus]) == 40

        await until(reserved, "stock to be reserved")
    finally:
        await shop.stack.restart_service("payment_svc")
    await settle(shop, orders)


async def test_a_search_engine_that_lost_everything_is_filled_again(shop: Shop) -> None:
    await shop.product()
    await shop.invariants_hold()
    await shop.stack.kill_engine("elasticsearch")
    await shop.stack.restart_engine("elasticsearch")
    await shop.product()
    await shop.serving("search_svc")

    async def found() -> bool:
        request = SearchProductsRequest(text="test product", page_size=1)
        return (await shop.clients.search.SearchProducts(request, timeout=TIMEOUT)).total_size > 1

    await until(found, "search to find the products again")
    await shop.invariants_hold()


async def test_a_broker_killed_under_load_loses_nothing(shop: Shop) -> None:
    skus = await shop.product(variants=3)
    async with shop.under_load(skus) as orders:
        await until_more(orders, 20)
        await shop.stack.kill_engine("nats")
        try:
            # Accepted without a broker, so that outboxes hold messages when it comes back.
            began = monotonic()
            await until_more(orders, 20)
            connection = await asyncpg.connect(shop.stack.auditor_urls()["order"])
            assert await connection.fetchval("SELECT count(*) FROM outbox") >= 20
            await connection.close()
            await until(lambda: after(began + OUTAGE), "the end of the outage")
        finally:
            await shop.stack.restart_engine("nats")
        await until_more(orders, 20)
    await settle(shop, orders)


async def until_more(orders: list[Order], count: int) -> None:
    """Until so many more orders were placed than now."""
    wanted = len(orders) + count

    async def placed() -> bool:
        return len(orders) >= wanted

    await until(placed, f"{count} more orders")


async def after(moment: float) -> bool:
    return monotonic() >= moment


@pytest.mark.parametrize("service", ALL_SERVICES)
async def test_a_service_killed_under_load_loses_nothing(shop: Shop, service: str) -> None:
    skus, customer = await shop.product(variants=3), await shop.customer()
    async with shop.under_load(skus, customer=customer) as orders:
        await until_more(orders, 20)
        await shop.stack.kill_service(service)
        await shop.stack.restart_service(service)
        await until_more(orders, 20)
    await settle(shop, orders)


@pytest.mark.parametrize("service", ["order_svc", "inventory_svc", "search_svc"])
async def test_two_replicas_share_the_load_and_one_may_die(shop: Shop, service: str) -> None:
    skus = await shop.product(variants=3)
    await shop.stack.start_service(service, replica=2)
    both = Shop(shop.stack, replicated=service)
    try:
        async with both.under_load(skus) as orders, searched(both) as answers:
            await until_more(orders, 20)
            await shop.stack.kill_service(service, replica=2)
            before = len(answers)
            await until_more(orders, 20)
        assert len(answers) > before > 0
        await settle(shop, orders)
    finally:
        await both.close()
        await shop.stack.stop_service(service, replica=2)


@asynccontextmanager
async def searched(shop: Shop) -> AsyncIterator[list[int]]:
    """Searches one after the other while the block lasts; yields the list of their totals. None may go unanswered."""
    request, totals = SearchProductsRequest(text="test product", page_size=1), list[int]()

    async def answered() -> int:
        return (await shop.clients.search.SearchProducts(request, timeout=5)).total_size

    async def search() -> None:
        while True:
            totals.append(await until(answered, "an answer of search"))

    searching = asyncio.create_task(search())
    try:
        yield totals
    finally:
        searching.cancel()
        with suppress(asyncio.CancelledError):
            await searching


async def test_postgresql_stopped_turns_its_services_not_serving_and_back(shop: Shop) -> None:
    needing = ("order_svc", "inventory_svc", "payment_svc", "customer_svc", "notification_svc")
    await shop.stack.kill_engine("postgres", signal.SIGSTOP)
    try:
        await asyncio.gather(*(not_serving(shop, service, 10) for service in needing))
        await shop.serving("catalog_svc", 1)
        await shop.serving("search_svc", 1)
    finally:
        await shop.stack.kill_engine("postgres", signal.SIGCONT)
    await asyncio.gather(*(shop.serving(service, 10) for service in needing))
    (sku,) = await shop.product()
    assert await shop.outcome(await shop.place(sku)) == "CONFIRMED"
    await shop.invariants_hold()


async def not_serving(shop: Shop, service: str, seconds: float) -> None:
    from ops.main import health

    async def gone() -> bool:
        return await health(shop.clients.channel(service)) == "NOT_SERVING"

    await until(gone, f"{service} to be NOT_SERVING", seconds)
