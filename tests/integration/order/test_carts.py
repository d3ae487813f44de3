"""CartService over gRPC on a real PostgreSQL."""

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polymart.catalog.v1.events_pb2 import ProductDeleted, ProductUpdated
from polymart.order.v1 import cart_pb2, order_pb2
from polymart.order.v1 import cart_service_pb2 as pb
from polymart.order.v1.cart_service_pb2_grpc import CartServiceStub

from chassis.clock import ManualClock
from chassis.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from chassis.ids import uuid7
from chassis.money import Money
from chassis.postgres import Postgres
from chassis.rpc.errors import translated
from order_svc.adapters.postgres_carts import PostgresCarts
from order_svc.adapters.postgres_orders import PostgresOrders
from order_svc.adapters.postgres_prices import PostgresPrices
from order_svc.application.carts import CartDesk
from order_svc.application.placing import Terms
from order_svc.domain.pricing import Offer, Wanted
from order_svc.domain.totals import Charges
from tests.conftest import until
from tests.integration.order.conftest import Replica, Shop, place_request


class Carts:
    """The stub, with the errors of chassis.errors."""

    def __init__(self, replica: Replica):
        self._channel = grpc.aio.insecure_channel(replica.service.address)
        self._stub: Any = CartServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def call(self, method: str, **fields: Any) -> Any:
        with translated("order_svc"):
            return await getattr(self._stub, method)(getattr(pb, f"{method}Request")(**fields), timeout=5)

    async def new(self, **fields: Any) -> str:
        cart: cart_pb2.Cart = await self.call("CreateCart", **fields)
        return cart.cart_id

    async def set(self, cart_id: str, etag: str = "", **lines: int) -> cart_pb2.Cart:
        wanted = [pb.SetCartLine(sku=sku, quantity=quantity) for sku, quantity in lines.items()]
        cart: cart_pb2.Cart = await self.call("SetCartLines", cart_id=cart_id, lines=wanted, etag=etag)
        return cart

    async def checkout(self, cart_id: str, **fields: Any) -> order_pb2.Order:
        order: order_pb2.Order = await self.call(
            "CheckoutCart", **{"cart_id": cart_id, "payment_token": "tok_approved", **fields}
        )
        return order


async def opened(shop: Shop, **settings: Any) -> tuple[Replica, Carts]:
    replica = await shop.open(**settings)
    carts = Carts(replica)
    shop.closing.push_async_callback(carts.close)
    return replica, carts


def quantities(cart: cart_pb2.Cart) -> dict[str, int]:
    return {line.sku: line.quantity for line in cart.lines}


async def test_a_guests_cart_becomes_the_customers_order(shop: Shop, db: Postgres) -> None:
    shop.catalog.sells("MUG")
    shop.catalog.sells("LAMP", "9.00")
    replica, carts = await opened(shop)
    cart_id = await carts.new()
    await carts.set(cart_id, MUG=2, LAMP=1)
    await carts.call("RemoveCartLines", cart_id=cart_id, skus=["LAMP", "NEVER"])
    cart = await carts.set(cart_id, LAMP=3, MUG=1)
    assert quantities(cart) == {"MUG": 1, "LAMP": 3}
    assert str(Money.from_proto(cart.total)) == "29.50 GBP"
    await carts.call("ApplyCustomer", cart_id=cart_id, customer_id="alice")
    with pytest.raises(FailedPrecondition) as raised:
        await carts.call("ApplyCustomer", cart_id=cart_id, customer_id="bob")
    assert raised.value.reason == "CART_TAKEN"

    order = await carts.checkout(cart_id)
    assert (order.customer_id, order.total, order.status) == ("alice", cart.total, order_pb2.ORDER_STATUS_PENDING)
    assert {line.sku: line.quantity for line in order.lines} == {"MUG": 1, "LAMP": 3}
    settled = await replica.final(order.order_id)
    assert await carts.checkout(cart_id, etag="stale", payment_token="tok_other") == settled
    closed = await carts.call("GetCart", cart_id=cart_id)
    assert (closed.order_id, quantities(closed)) == (order.order_id, {"MUG": 1, "LAMP": 3})
    for method, more in (
        ("SetCartLines", {"lines": [pb.SetCartLine(sku="MUG", quantity=1)]}),
        ("RemoveCartLines", {"skus": ["MUG"]}),
        ("ApplyCustomer", {"customer_id": "alice"}),
        ("RefreshCart", {}),
    ):
        with pytest.raises(FailedPrecondition) as raised:
            await carts.call(method, cart_id=cart_id, **more)
        assert raised.value.reason == "CART_CLOSED"
        assert order.order_id in str(raised.value)
    assert await db.fetchval("SELECT count(*) FROM orders") == 1


async def test_a_cart_checked_out_many_times_at_once_is_one_order(shop: Shop, db: Postgres) -> None:
    shop.catalog.sells("MUG")
    (_, one), (_, other) = await opened(shop), await opened(shop)
    cart_id = await one.new()
    await one.set(cart_id, MUG=1)
    orders = await asyncio.gather(*(carts.checkout(cart_id) for carts in (one, other) * 10))
    assert len({order.order_id for order in orders}) == 1
    assert await db.fetchval("SELECT count(*) FROM orders") == 1


async def test_a_line_that_was_set_while_the_cart_is_checked_out_is_in_the_order_or_refused(
    shop: Shop, db: Postgres
) -> None:
    skus = [f"S{n}" for n in range(10)]
    for sku in skus:
        shop.catalog.sells(sku)
    _, carts = await opened(shop)
    for _ in range(5):
        cart_id = await carts.new()
        await carts.set(cart_id, S0=1)

        async def edit(sku: str, cart_id: str = cart_id) -> str | None:
            try:
                await carts.set(cart_id, **{sku: 2})
            except FailedPrecondition:
                return None
            return sku

        order, *edited = await asyncio.gather(carts.checkout(cart_id), *map(edit, skus[1:]))
        assert {line.sku for line in order.lines} == {"S0", *filter(None, edited)}


async def test_a_changed_price_is_told_and_has_to_be_accepted(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    shop.catalog.sells("LAMP", "9.00")
    replica, carts = await opened(shop)
    cart_id = await carts.new()
    await carts.set(cart_id, MUG=2, LAMP=1)

    dearer = shop.catalog.sells("MUG", "2.75", version=2)
    await shop.publish(ProductUpdated(product=dearer), "p-MUG")

    async def told() -> Any:
        cart = await carts.call("GetCart", cart_id=cart_id)
        return cart if cart.lines[0].notice else None

    await until(told)
    cart = await told()
    assert cart.lines[0].notice == cart_pb2.CART_LINE_NOTICE_PRICE_CHANGED
    assert str(Money.from_proto(cart.lines[0].unit_price)) == "2.50 GBP"
    assert str(Money.from_proto(cart.lines[0].new_unit_price)) == "2.75 GBP"
    assert str(Money.from_proto(cart.total)) == "14.50 GBP"
    assert not cart.lines[1].notice
    with pytest.raises(FailedPrecondition) as raised:
        await carts.checkout(cart_id)
    assert raised.value.reason == "PRICE_CHANGED"
    assert [(v.field, v.description) for v in raised.value.violations] == [("lines[0]", "2.75 GBP")]

    other = await carts.new()
    await carts.set(other, MUG=1)
    refreshed = await carts.call("RefreshCart", cart_id=cart_id)
    assert refreshed.lines[0].notice == cart_pb2.CART_LINE_NOTICE_PRICE_CHANGED
    assert not (await carts.call("GetCart", cart_id=cart_id)).lines[0].notice
    assert (await carts.checkout(cart_id)).total == cart.total

    await shop.publish(ProductUpdated(product=shop.catalog.sells("MUG", "3.00", version=3)), "p-MUG")

    async def heard() -> bool:
        return bool((await carts.call("GetCart", cart_id=other)).lines[0].notice)

    await until(heard)
    order = await carts.checkout(other, accept_price_changes=True)
    assert order.total.units == 3

    expected = place_request(("MUG", 1), ("LAMP", 1))
    expected.lines[0].expected_unit_price.CopyFrom(Money.parse("GBP", "2.75").to_proto())
    with pytest.raises(FailedPrecondition) as raised:
        await replica.call("PlaceOrder", expected)
    assert [(v.field, v.description) for v in raised.value.violations] == [("lines[0]", "3.00 GBP")]
    expected.accept_price_changes = True
    assert (await replica.call("PlaceOrder", expected)).total.units == 12


async def test_what_is_not_sold_any_more_is_told_and_cannot_be_ordered(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    shop.catalog.sells("LAMP", "9.00")
    _, carts = await opened(shop)
    cart_id = await carts.new()
    await carts.set(cart_id, MUG=2, LAMP=1)
    del shop.catalog.products["LAMP"]
    await shop.publish(ProductDeleted(product_id="p-LAMP", version=2), "p-LAMP")

    async def gone() -> bool:
        cart = await carts.call("GetCart", cart_id=cart_id)
        return bool(cart.lines[1].notice == cart_pb2.CART_LINE_NOTICE_NOT_SOLD and not cart.HasField("total"))

    await until(gone)
    with pytest.raises(FailedPrecondition) as raised:
        await carts.checkout(cart_id, accept_price_changes=True)
    assert (raised.value.reason, [v.field for v in raised.value.violations]) == ("CART_NOT_SOLD", ["lines[1].sku"])
    await carts.call("RemoveCartLines", cart_id=cart_id, skus=["LAMP"])
    assert len((await carts.checkout(cart_id)).lines) == 1


async def test_an_etag_refuses_what_would_not_be_seen(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    _, carts = await opened(shop)
    cart_id = await carts.new()
    seen = await carts.set(cart_id, MUG=1)
    await carts.set(cart_id, MUG=2, etag=seen.etag)
    for edit in (
        carts.set(cart_id, MUG=3, etag=seen.etag),
        carts.call("RemoveCartLines", cart_id=cart_id, skus=["MUG"], etag=seen.etag),
        carts.checkout(cart_id, etag=seen.etag),
    ):
        with pytest.raises(Aborted) as raised:
            await edit
        assert raised.value.reason == "STALE_ETAG"
    assert quantities(await carts.call("GetCart", cart_id=cart_id)) == {"MUG": 2}


async def test_bad_requests_are_told_everything_that_is_wrong(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    shop.catalog.sells("PEN", currency="EUR")
    _, carts = await opened(shop)
    cart_id = await carts.new()

    async def violations(method: str, **fields: Any) -> list[str]:
        with pytest.raises(InvalidArgument) as raised:
            await carts.call(method, **fields)
        return [violation.field for violation in raised.value.violations]

    def line(sku: str, quantity: int) -> Message:
        return pb.SetCartLine(sku=sku, quantity=quantity)

    bad = [line("", 1), line("MUG", 0), line("M\0G", 1_000_001), line("MUG", 1)]
    assert set(await violations("SetCartLines", cart_id="7", lines=bad, etag="x" * 200)) == {
        "cart_id", "etag", "lines[0].sku", "lines[1].quantity", "lines[2].sku", "lines[2].quantity", "lines[3].sku",
    }  # fmt: skip
    unknown = [line("GONE", 1), line("MUG", 1), line("PEN", 1)]
    assert await violations("SetCartLines", cart_id=cart_id, lines=unknown) == ["lines[0].sku", "lines[2].sku"]
    assert not (await carts.call("GetCart", cart_id=cart_id)).lines
    assert await violations("CheckoutCart", cart_id="x") == ["cart_id", "payment_token"]
    destination = order_pb2.Destination(country_code="gb", region_code="north")
    assert await violations("CreateCart", customer_id="a\0", destination=destination) == [
        "customer_id", "destination.country_code", "destination.region_code",
    ]  # fmt: skip
    assert await violations("ApplyCustomer", cart_id=cart_id) == ["customer_id"]
    assert await violations("RemoveCartLines", cart_id=cart_id, skus=["a\0"]) == ["skus[0]"]
    for method in ("GetCart", "RefreshCart"):
        with pytest.raises(NotFound):
            await carts.call(method, cart_id=str(uuid4()))
    with pytest.raises(FailedPrecondition) as raised:
        await carts.checkout(cart_id)
    assert raised.value.reason == "CART_EMPTY"


async def test_a_cart_holds_a_thousand_lines(shop: Shop) -> None:
    skus = [f"SKU-{n}" for n in range(1001)]
    for sku in skus:
        shop.catalog.sells(sku, "1.25")
    replica, carts = await opened(shop)
    cart_id = await carts.new()
    cart = await carts.set(cart_id, **dict.fromkeys(skus[:1000], 2))
    with pytest.raises(FailedPrecondition) as raised:
        await carts.set(cart_id, **{skus[1000]: 1})
    assert raised.value.reason == "CART_FULL"
    order = await carts.checkout(cart_id)
    assert [line.sku for line in order.lines] == skus[:1000]
    assert (order.total.units, order.total) == (2500, cart.total)
    await replica.final(order.order_id)


async def test_a_cart_nobody_edits_expires(shop: Shop, db: Postgres) -> None:
    shop.catalog.sells("MUG")
    clock = ManualClock()
    _, carts = await opened(shop, clock=clock, cart_expiry_seconds=100)
    kept, left = await carts.new(), await carts.new()
    await carts.set(left, MUG=1)
    clock.advance(timedelta(seconds=60))
    await carts.set(kept, MUG=1)
    clock.advance(timedelta(seconds=60))
    assert quantities(await carts.call("GetCart", cart_id=kept)) == {"MUG": 1}
    for method, more in (("GetCart", {}), ("RemoveCartLines", {"skus": ["MUG"]})):
        with pytest.raises(NotFound):
            await carts.call(method, cart_id=left, **more)
    with pytest.raises(NotFound):
        await carts.checkout(left)
    assert await PostgresCarts(db).drop_expired(clock.now(), limit=10) <= 1
    rows = await db.fetch("SELECT cart_id FROM carts")
    assert [str(row["cart_id"]) for row in rows] == [kept]
    assert await db.fetchval("SELECT count(*) FROM cart_lines") == 1


async def test_taxes_and_shipping_are_charged_shown_and_kept(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "charges.toml"
    path.write_text(
        '[[tax]]\ncountry = "GB"\npercent = "20"\n[[tax]]\ncountry = "GB"\nclass = "shipping"\npercent = "20"\n'
        '[[tax]]\ncountry = "GB"\nclass = "books"\npercent = "0"\n'
        '[[shipping]]\ncurrency = "GBP"\nflat = "4.95"\nfree_from = "50"\n'
    )
    shop.catalog.sells("MUG", "2.55")
    shop.catalog.sells("BOOK", "9.99").tax_class = "books"
    replica, carts = await opened(shop, order_charges_file=str(path))
    with pytest.raises(InvalidArgument) as raised:
        await replica.place(("MUG", 1))
    assert [v.field for v in raised.value.violations] == ["destination"]
    uk = order_pb2.Destination(country_code="GB")
    cart_id = await carts.new(destination=uk)
    cart = await carts.set(cart_id, MUG=3, BOOK=1)
    order = await carts.checkout(cart_id)
    assert (order.totals, order.total, order.destination) == (cart.totals, cart.total, uk)
    shown = {name.name: str(Money.from_proto(value)) for name, value in order.totals.ListFields()}
    assert shown == {"net": "17.64 GBP", "tax": "1.53 GBP", "shipping": "4.95 GBP", "shipping_tax": "0.99 GBP"}
    assert str(Money.from_proto(order.total)) == "25.11 GBP"
    assert [line.tax_rate_millionths for line in order.lines] == [200_000, 0]
    assert (await replica.final(order.order_id)).totals == order.totals
    (paid,) = [c.payload for c in shop.commands if c.payload.DESCRIPTOR.name == "AuthorizePayment"]
    assert paid.amount == order.total  # type: ignore[attr-defined]
    dear = await replica.place(("MUG", 20), destination=order_pb2.Destination(country_code="FR"))
    assert (str(Money.from_proto(dear.total)), dear.totals.tax.units) == ("51.00 GBP", 0)


EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "remove"]), st.sampled_from([f"S{n}" for n in range(8)]), st.integers(1, 9)),
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(editors=st.lists(EDITS, min_size=2, max_size=5), data=st.data())
async def test_concurrent_editors_never_lose_a_line_of_each_other(
    editors: list[list[tuple[str, str, int]]], data: st.DataObject, db: Postgres, orders: PostgresOrders
) -> None:
    """Each editor edits SKUs of its own, and all of them one they share: the cart ends as each of them left it."""
    owned = [
        [(kind, f"{number}-{sku}", quantity) for kind, sku, quantity in edits] for number, edits in enumerate(editors)
    ]
    offers = [
        Offer(sku, f"p-{sku}", 1, sku, Money.parse("GBP", "1"), untracked=False)
        for sku in {"shared", *(sku for edits in owned for _, sku, _ in edits)}
    ]
    prices = PostgresPrices(db)
    await prices.remember(offers)
    desk = CartDesk(
        PostgresCarts(db), orders, prices, None, ManualClock(), uuid7, Terms(Charges(), timedelta(1)), timedelta(1),  # type: ignore[arg-type]
    )  # fmt: skip
    cart_id = (await desk.create("", None)).cart.cart_id

    async def edit(number: int, edits: list[tuple[str, str, int]]) -> None:
        for kind, sku, quantity in edits:
            if kind == "set":
                await desk.set_lines(cart_id, [Wanted(sku, quantity)], "")
            else:
                await desk.remove_lines(cart_id, [sku], "")
        await desk.set_lines(cart_id, [Wanted("shared", number + 1)], "")

    await asyncio.gather(*(edit(number, edits) for number, edits in enumerate(owned)))
    expected: dict[str, int] = {}
    for edits in owned:
        for kind, sku, quantity in edits:
            expected.pop(sku, None)
            if kind == "set":
                expected[sku] = quantity
    shown = await desk.get(cart_id)
    found = {sku: line.quantity for sku, line in shown.cart.lines.items()}
    assert 1 <= found.pop("shared") <= len(editors)
    assert found == expected
    places = await db.fetch("SELECT place FROM cart_lines WHERE cart_id = $1", cart_id)
    assert max(Counter(row["place"] for row in places).values()) == 1
    assert shown.cart.version == 1 + sum(map(len, owned)) + len(owned)
