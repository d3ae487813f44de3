"""A running stack as its clients see it, with what the tests do over and over."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TypeVar
from uuid import uuid4

import grpc
from polymart.catalog.v1.catalog_service_pb2 import CreateProductRequest
from polymart.catalog.v1.product_pb2 import Product, Variant
from polymart.customer.v1.customer_pb2 import Customer
from polymart.customer.v1.customer_service_pb2 import CreateCustomerRequest
from polymart.inventory.v1 import inventory_service_pb2 as inventory
from polymart.inventory.v1.stock_pb2 import StockLevel
from polymart.order.v1 import order_service_pb2 as ordering
from polymart.order.v1 import shipment_service_pb2 as shipping
from polymart.order.v1.order_pb2 import Order, OrderUnits
from polymart.order.v1.shipment_pb2 import Shipment

from chassis.money import Money
from devstack.stack import Stack
from ops.clients import Clients
from ops.orders import reason_name
from ops.verify import quiet, verify

T = TypeVar("T")

TIMEOUT = 10.0
PATIENCE = 60.0

# What a client that means to get through tries again, with the same request_id.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def until(condition: Callable[[], Awaitable[T]], what: str, seconds: float = PATIENCE) -> T:
    """The condition's first true value. Fails after `seconds`; a service that is away counts as not yet."""
    deadline = monotonic() + seconds
    while True:
        try:
            if value := await condition():
                return value
        except grpc.aio.AioRpcError as error:
            if error.code() not in PASSING:
                raise
        assert monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.05)


class Shop:
    """`replicated` names a service whose calls go to its first two replicas in turn."""

    def __init__(self, stack: Stack, *, replicated: str = ""):
        def address_of(service: str) -> str:
            if service != replicated:
                return stack.address(service)
            return f"ipv4:{stack.address(service)},{stack.address(service, replica=2)}"

        self.stack = stack
        self.clients = Clients(address_of)

    async def close(self) -> None:
        await self.clients.close()

    async def product(self, *, price: str = "10.00", stock: int | None = 1000, variants: int = 1) -> list[str]:
        """A new product's SKUs, each with `stock` units, or untracked for None."""
        name = f"t-{secrets.token_hex(5)}"
        skus = [f"{name}-{number}" for number in range(variants)]
        money = Money.parse("GBP", price).to_proto()
        await self.clients.catalog.CreateProduct(
            CreateProductRequest(
                product=Product(
                    product_id=name,
                    name=f"Test product {name}",
                    variants=[Variant(sku=sku, price=money, untracked=stock is None) for sku in skus],
                )
            ),
            timeout=TIMEOUT,
            wait_for_ready=True,
        )
        if stock is not None:
            counts = [inventory.StockCount(sku=sku, on_hand=stock) for sku in skus]
            await self.clients.inventory.SetStock(
                inventory.SetStockRequest(counts=counts), timeout=TIMEOUT, wait_for_ready=True
            )
        return skus

    async def customer(self) -> str:
        """A new customer's id."""
        name = f"c-{secrets.token_hex(5)}"
        customer = Customer(customer_id=name, display_name=name, email=f"{name}@shop.example")
        request = CreateCustomerRequest(customer=customer)
        await self.clients.customers.CreateCustomer(request, timeout=TIMEOUT, wait_for_ready=True)
        return name

    async def place(
        self, *skus: str, quantity: int = 1, token: str = "tok_approved", customer: str = "", request_id: str = ""
    ) -> Order:
        """Place an order as a client would that doesn't give up: the same request until it is answered."""
        request = ordering.PlaceOrderRequest(
            request_id=request_id or str(uuid4()),
            customer_id=customer,
            lines=[ordering.PlaceOrderLine(sku=sku, quantity=quantity) for sku in skus],
            payment_token=token,
        )

        async def placed() -> Order:
            return await self.clients.orders.PlaceOrder(request, timeout=5)

        return await until(placed, "PlaceOrder")

    async def settled(self, order: Order, seconds: float = PATIENCE) -> Order:
        """The order once nothing is left to do for it."""

        async def done() -> Order | None:
            request = ordering.GetOrderRequest(order_id=order.order_id)
            seen = await self.clients.orders.GetOrder(request, timeout=5)
            return seen if seen.settled else None

        found = await until(done, f"order {order.order_id} to settle", seconds)
        assert found is not None
        return found

    async def ship(self, order: Order, *units: OrderUnits) -> Shipment:
        """Ship these units, or all that is left."""
        request = shipping.CreateShipmentRequest(
            order_id=order.order_id, request_id=str(uuid4()), operator="bob", lines=units
        )
        return await self.clients.shipments.CreateShipment(request, timeout=TIMEOUT)

    async def delivered(self, shipment: Shipment) -> None:
        request = shipping.MarkShipmentDeliveredRequest(shipment_id=shipment.shipment_id, operator="bob")
        await self.clients.shipments.MarkShipmentDelivered(request, timeout=TIMEOUT)

    async def outcome(self, order: Order) -> str:
        """CONFIRMED, or the reason why not, once settled."""
        return reason_name(await self.settled(order))

    async def stock(self, sku: str) -> StockLevel:
        return await self.clients.inventory.GetStock(
            inventory.GetStockRequest(sku=sku), timeout=TIMEOUT, wait_for_ready=True
        )

    async def load(
        self, skus: Sequence[str], orders: int, *, in_flight: int = 8, customer: str = "", first: int = 0
    ) -> list[Order]:
        """Place so many orders of two lines each, a tenth of them with a card that is declined."""
        slots = asyncio.Semaphore(in_flight)

        async def one(number: int) -> Order:
            async with slots:
                lines = skus[number % len(skus)], skus[(number * 7 + 1) % len(skus)]
                token = "tok_declined" if number % 10 == 9 else "tok_approved"
                return await self.place(*lines, token=token, customer=customer)

        return list(await asyncio.gather(*map(one, range(first, first + orders))))

    @asynccontextmanager
    async def under_load(self, skus: Sequence[str], *, customer: str = "") -> AsyncIterator[list[Order]]:
        """Orders go on being placed while the block lasts, up to 40 a second; yields the list of those placed so far.

        Leaving the block waits for those in hand: by then every one has been answered.
        """
        placed: list[Order] = []
        over = asyncio.Event()

        async def buyer(number: int) -> None:
            while not over.is_set():
                placed.extend(await self.load(skus, 1, customer=customer, first=len(placed) + number))
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await over.wait()

        async with asyncio.TaskGroup() as buyers:
            for number in range(4):
                buyers.create_task(buyer(number))
            try:
                yield placed
            finally:
                over.set()

    async def invariants_hold(self) -> None:
        """Everything settles, and all stores agree."""
        await quiet(self.stack.info(), PATIENCE)
        report = await verify(self.stack.info())
        assert report.findings == [], report.findings

    async def serving(self, service: str, seconds: float = PATIENCE) -> None:
        from ops.main import health

        async def ready() -> bool:
            return await health(self.clients.channel(service)) == "SERVING"

        await until(ready, f"{service} to serve", seconds)

    def kill(self, pid: int, signal: int) -> None:
        os.kill(pid, signal)
