"""What can be seen of one order from outside."""

import asyncio
from urllib.request import urlopen

from polymart.order.v1 import order_service_pb2 as ordering

from tests.e2e.collector import Collector
from tests.e2e.shop import TIMEOUT, Shop, until


async def test_one_trace_follows_an_order_through_every_service(shop: Shop, collector: Collector) -> None:
    (sku,), customer = await shop.product(), await shop.customer()
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    request = ordering.PlaceOrderRequest(
        request_id="0af76519-16cd-43dd-8448-eb211c80319c",
        customer_id=customer,
        lines=[ordering.PlaceOrderLine(sku=sku, quantity=1)],
        payment_token="tok_approved",
    )
    traceparent = f"00-{trace_id}-b7ad6b7169203331-01"
    placed = await shop.clients.orders.PlaceOrder(request, timeout=TIMEOUT, metadata=(("traceparent", traceparent),))
    await shop.settled(placed)
    wanted = {"order_svc", "inventory_svc", "payment_svc", "notification_svc", "email_svc"}

    async def complete() -> bool:
        return wanted <= collector.services_of(trace_id)

    await until(complete, f"the trace; it has {collector.services_of(trace_id)}")


async def test_every_service_tells_its_rates_durations_and_queues(shop: Shop) -> None:
    (sku,) = await shop.product()
    await shop.settled(await shop.place(sku))

    async def metrics(service: str) -> str:
        url = f"http://{shop.stack.metrics_address(service)}/metrics"
        return await asyncio.to_thread(lambda: urlopen(url, timeout=5).read().decode())

    order = await metrics("order_svc")
    assert 'method="polymart.order.v1.OrderService/PlaceOrder"' in order
    assert 'type="polymart.inventory.v1.StockReserved"' in order
    for name in ("polymart_outbox_entries", "polymart_outbox_oldest_seconds"):
        assert name in order

    async def lag() -> bool:
        return 'polymart_consumer_lag{consumer="order_svc-EVT_PAYMENT"' in (await metrics("order_svc"))

    await until(lag, "the lag of a consumer")
    assert "polymart_dead_letters" in await metrics("inventory_svc")
