"""Stock at two locations through whole orders, and the command that explains it."""

import asyncio
from typing import Any
from uuid import uuid4

from polymart.inventory.v1 import inventory_service_pb2 as inventory
from polymart.inventory.v1.location_pb2 import Location

from tests.e2e.command import polymart
from tests.e2e.shop import TIMEOUT, Shop, until


async def data(shop: Shop, *arguments: str) -> Any:
    ended = await polymart(shop, *arguments, "--json")
    assert ended.code == 0, ended.err
    return ended.json()


async def annex(shop: Shop, sku: str, units: int) -> None:
    """The same location for all tests, farther than main."""
    location = Location(location_id="annex", display_name="Annex", priority=7)
    await shop.clients.inventory.CreateLocation(inventory.CreateLocationRequest(location=location), timeout=TIMEOUT)
    counts = [inventory.StockCount(sku=sku, on_hand=units, location_id="annex")]
    await shop.clients.inventory.SetStock(inventory.SetStockRequest(counts=counts), timeout=TIMEOUT)


async def test_an_order_served_from_two_locations_and_partly_returned(shop: Shop) -> None:
    (sku,) = await shop.product(stock=2)
    await annex(shop, sku, 3)
    order = await shop.settled(await shop.place(sku, quantity=4))
    back = inventory.RestockStockRequest(
        order_id=order.order_id,
        lines=[inventory.ReturnedLine(sku=sku, quantity=1)],
        location_id="annex",
        request_id=str(uuid4()),
    )
    for _ in range(2):
        await shop.clients.inventory.RestockStock(back, timeout=TIMEOUT)
    told = await data(shop, "stock", "show", sku)
    assert {at["location_id"]: at["on_hand"] for at in told["level"]["locations"]} == {"main": "0", "annex": "2"}
    assert told["reservations"] == []
    moved = [(m["kind"].removeprefix("MOVEMENT_KIND_"), m["location_id"]) for m in told["movements"]]
    assert moved[0] == ("RESTOCK", "annex")
    assert sorted(moved[1:5]) == [(k, at) for k in ("COMMIT", "RESERVE") for at in ("annex", "main")]
    assert sum(int(m["on_hand_delta"]) for m in told["movements"]) == int(told["level"]["on_hand"]) == 2
    await shop.invariants_hold()


async def test_stock_is_received_and_adjusted_once_by_each_request(shop: Shop) -> None:
    (sku,) = await shop.product(stock=2)
    received = (sku, "5", "--reason", "note 17", "--request-id", str(uuid4()))
    taken = (sku, "-3", "--reason", "broken", "--request-id", str(uuid4()))
    for change, arguments, on_hand in (("receive", received, "7"), ("adjust", taken, "4")):
        for _ in range(2):
            assert (await data(shop, "stock", change, *arguments))["on_hand"] == on_hand
    (latest, earlier, _) = (await data(shop, "stock", "show", sku))["movements"]
    assert [(m["on_hand_delta"], m["reason"]) for m in (latest, earlier)] == [("-3", "broken"), ("5", "note 17")]
    ended = await polymart(shop, "stock", "receive", sku, "1", "--location", "nowhere")
    assert "LOCATION_NOT_FOUND" in ended.err
    assert "request id " in ended.err


async def test_safety_stock_is_not_sold(shop: Shop) -> None:
    (sku,) = await shop.product(stock=5)
    settings = [inventory.StockSettings(sku=sku, safety_stock=2)]
    await shop.clients.inventory.ConfigureStock(inventory.ConfigureStockRequest(settings=settings), timeout=TIMEOUT)
    outcomes = await asyncio.gather(*[shop.outcome(await shop.place(sku)) for _ in range(5)])
    assert sorted(outcomes) == ["CONFIRMED"] * 3 + ["OUT_OF_STOCK"] * 2
    assert (await shop.stock(sku)).on_hand == 2
    await shop.invariants_hold()


async def test_an_open_reservation_is_shown_until_its_order_ends(shop: Shop) -> None:
    (sku,) = await shop.product(stock=2)
    await annex(shop, sku, 1)
    await shop.stack.kill_service("payment_svc")
    try:
        order = await shop.place(sku, quantity=3)

        async def reserved() -> bool:
            return (await shop.stock(sku)).reserved == 3

        await until(reserved, "stock to be reserved")
        (held,) = await data(shop, "stock", "reservations", "--sku", sku)
        assert held["order_id"] == order.order_id
        assert {a["location_id"]: a["quantity"] for a in held["allocations"]} == {"annex": "1", "main": "2"}
        assert await data(shop, "stock", "reservations", "--sku", sku, "--older-than", "1h") == []
        shown = (await polymart(shop, "stock", "show", sku, COLUMNS="200")).out
        assert order.order_id in shown
        assert "1 at annex, 2 at main" in shown
        assert order.order_id in (await polymart(shop, "stock", "reservations", COLUMNS="200")).out
    finally:
        await shop.stack.restart_service("payment_svc")
    await shop.settled(order)
    assert await data(shop, "stock", "reservations", "--sku", sku) == []
    await shop.invariants_hold()


async def test_what_the_command_cannot_do_is_said_in_one_line(shop: Shop) -> None:
    ended = await polymart(shop, "stock", "show", "never-stocked")
    told = "polymart: NOT_FOUND (SKU_NOT_STOCKED): SKU never-stocked was never stocked\n"
    assert (ended.code, ended.out, ended.err) == (1, "", told)
    ended = await polymart(shop, "stock", "reservations", "--older-than", "soon")
    assert (ended.code, ended.err) == (1, "polymart: soon: write an age as 90s, 30m, 2h or 1d\n")


async def test_locations_are_listed(shop: Shop) -> None:
    first, *_ = await data(shop, "stock", "locations")
    assert (first["location_id"], first["priority"]) == ("main", 0)
