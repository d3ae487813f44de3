"""What stays true while services and engines are killed under load."""

import asyncio
import signal

import asyncpg
import pytest
from polymart.order.v1.order_pb2 import Order
from polymart.search.v1.search_service_pb2 import SearchProductsRequest

from devstack.stack import ALL_SERVICES
from tests.e2e.shop import TIMEOUT, Shop, until

LOAD = 60


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
    load = asyncio.create_task(shop.load(skus, LOAD))
    await until_placed(shop, skus)
    await shop.stack.kill_engine("nats")
    try:
        # Accepted without a broker, so that outboxes hold messages when it comes back.
        during = await shop.load(skus, 10)
        connection = await asyncpg.connect(shop.stack.auditor_urls()["order"])
        assert await connection.fetchval("SELECT count(*) FROM outbox") >= 10
        await connection.close()
        assert not await until_after(5.0, load)
    finally:
        await shop.stack.restart_engine("nats")
    await settle(shop, [*during, *await load])


async def until_placed(shop: Shop, skus: list[str]) -> None:
    """Until the load has got somewhere."""

    async def sold() -> bool:
        return (await shop.stock(skus[0])).on_hand < 1000

    await until(sold, "the first sale")


async def until_after(seconds: float, task: "asyncio.Task[object]") -> bool:
    """Gives the outage its time; whether the load had failed meanwhile."""
    await asyncio.wait({task}, timeout=seconds)
    return task.done() and task.exception() is not None


@pytest.mark.parametrize("service", ALL_SERVICES)
async def test_a_service_killed_under_load_loses_nothing(shop: Shop, service: str) -> None:
    skus, customer = await shop.product(variants=3), await shop.customer()
    load = asyncio.create_task(shop.load(skus, LOAD, customer=customer))
    await until_placed(shop, skus)
    await shop.stack.kill_service(service)
    await shop.stack.restart_service(service)
    await settle(shop, await load)


@pytest.mark.parametrize("service", ["order_svc", "inventory_svc", "search_svc"])
async def test_two_replicas_share_the_load_and_one_may_die(shop: Shop, service: str) -> None:
    skus = await shop.product(variants=3)
    await shop.stack.start_service(service, replica=2)
    both = Shop(shop.stack, replicated=service)
    try:
        load = asyncio.create_task(both.load(skus, LOAD))
        searches = asyncio.create_task(search_until(both, load))
        await until_placed(shop, skus)
        await shop.stack.kill_service(service, replica=2)
        await settle(shop, await load)
        assert await searches > 10
    finally:
        await both.close()
        await shop.stack.stop_service(service, replica=2)


async def search_until(shop: Shop, load: "asyncio.Task[list[Order]]") -> int:
    """Search as long as orders are placed; how many answers there were. None may be missing in the end."""
    request, answers = SearchProductsRequest(text="test product", page_size=1), 0

    async def answered() -> bool:
        return (await shop.clients.search.SearchProducts(request, timeout=5)).total_size > 0

    while not load.done():
        answers += await until(answered, "an answer of search")
    return answers


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
