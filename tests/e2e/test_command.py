"""What a person or a script can do with `polymart` on a running stack, and how it speaks of errors."""

import json
import secrets
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from polymart.customer.v1.customer_pb2 import Customer
from polymart.customer.v1.customer_service_pb2 import CreateCustomerRequest, UpdateCustomerRequest
from polymart.order.v1.events_pb2 import OrderSettled
from polymart.order.v1.order_pb2 import Order

from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats
from tests.e2e.command import polymart
from tests.e2e.shop import TIMEOUT, Shop, until


def row(sku: str, **changes: object) -> str:
    return json.dumps({"sku": sku, "name": f"Command {sku}", "price": "2.50", "currency": "GBP", **changes})


async def test_a_file_goes_in_but_for_its_bad_lines_which_are_named(shop: Shop, tmp_path: Path) -> None:
    name = f"cmd{secrets.token_hex(4)}"
    file = tmp_path / "products.jsonl"
    file.write_text("\n".join([row(f"{name}-1"), "{not json", row(f"{name}-3", price="dear"), row(f"{name}-4")]))
    first = await polymart(shop, "import", str(file), "--json")
    assert first.code == 1
    assert (first.json()["CREATED"], first.json()["REJECTED"]) == (2, 2)
    assert [rejection["line"] for rejection in first.json()["rejections"]] == [2, 3]
    again = await polymart(shop, "import", str(file))
    assert "2 unchanged" in again.out
    assert "line 2: " in again.out

    async def found() -> bool:
        response = await polymart(shop, "search", f"command {name}", "--json")
        return {hit["product_id"] for hit in response.json().get("hits", ())} >= {f"{name}-1", f"{name}-4"}

    await until(found, "search to find what was imported")


async def test_an_order_is_placed_watched_shown_and_listed(shop: Shop) -> None:
    (sku,), customer = await shop.product(price="10.00"), await shop.customer()
    placed = await polymart(shop, "order", "place", f"{sku}=3", "--customer", customer, "--json")
    order_id = placed.json()["order_id"]
    watched = await polymart(shop, "order", "watch", order_id, "--json")
    assert json.loads(watched.out.splitlines()[-1])["settled"]
    shown = await polymart(shop, "order", "show", order_id)
    assert "OrderConfirmed" in shown.out
    assert "30.00" in shown.out
    listed = await polymart(shop, "order", "list", "--customer", customer)
    assert listed.out.count("CONFIRMED") == 1


async def test_an_order_is_seen_through_and_looked_after(shop: Shop) -> None:
    (sku,) = await shop.product(price="10.00", stock=50)
    order_id = (await shop.settled(await shop.place(sku, quantity=4))).order_id

    async def done(*arguments: str, code: int = 0) -> Any:
        ended = await polymart(shop, "order", *arguments, "--json")
        assert ended.code == code, ended.err
        return ended.json()

    part = await done("cancel", order_id, "1=1", "--operator", "bob", "--reason", "one is broken")
    assert part["lines"][0]["cancelled_quantity"] == "1"
    await shop.settled(Order(order_id=order_id))
    first = await done("ship", order_id, "1=2", "--carrier", "Post", "--operator", "bob")
    under_way = await polymart(shop, "order", "shipments", order_id, "--under-way")
    assert under_way.out.count(first["shipment_id"]) == 1
    assert "deliver_time" in await done("deliver", first["shipment_id"], "--operator", "bob")
    refused = await polymart(shop, "order", "ship", order_id, "1=2", "--operator", "bob")
    assert (refused.code, "of line 1" in refused.err, "2 wanted, 1 left" in refused.err) == (1, True, True)

    await shop.stack.stop_service("payment_svc")
    try:
        await done("return", order_id, "1=1", "--restock", "--operator", "bob", "--reason", "too big")

        async def waits() -> bool:
            ended = await polymart(shop, "order", "stuck", "--seconds", "1", "--json")
            found = {one["order"]["order_id"]: one["waits"] for one in map(json.loads, ended.out.splitlines())}
            return ended.code == 1 and [wait["command"] for wait in found.get(order_id, ())] == ["RefundPayment"]

        await until(waits, "the order to be stuck")
        assert order_id in (await polymart(shop, "order", "stuck", "--seconds", "1")).out
        await done("retry", order_id, "--operator", "eve", "--reason", "asked twice")
    finally:
        await shop.stack.restart_service("payment_svc")
    assert (await shop.settled(Order(order_id=order_id))).refunded.units == 20
    assert (await polymart(shop, "order", "stuck", "--seconds", "1")).code == 0

    shown = await polymart(shop, "order", "show", order_id, COLUMNS="200")
    for told in ("asked twice", "eve", "RetryOrder", "one is broken", "OrderLinesReturned", "MarkShipmentDelivered"):
        assert told in shown.out
    listed = await polymart(shop, "order", "list", "--status", "partly_shipped", "--from", "2020-01-01", "--json")
    assert order_id in listed.out
    assert (await polymart(shop, "order", "list", "--before", "2020-01-01", "--json")).out == ""
    compared = await done("rebuild", "--dry-run")
    assert "difference_count" not in compared
    assert (await done("rebuild"))["order_count"] == compared["order_count"]
    await shop.invariants_hold()


async def test_a_notification_that_failed_is_listed_and_delivered_after_all(shop: Shop) -> None:
    customer_id = f"c-{secrets.token_hex(5)}"
    customers = shop.clients.customers
    await customers.CreateCustomer(CreateCustomerRequest(customer=Customer(customer_id=customer_id)), timeout=TIMEOUT)
    (sku,) = await shop.product()
    await shop.settled(await shop.place(sku, customer=customer_id))

    async def come_to(status: str) -> list[Any]:
        ended = await polymart(shop, "notification", "list", "--customer", customer_id, "--status", status, "--json")
        return list(ended.json())

    async def failed() -> list[Any]:
        return await come_to("failed")

    async def processed() -> list[Any]:
        return await come_to("processed")

    (told,) = await until(failed, "the notification to fail")
    assert (told["failure"], told["kind"]) == (
        "the customer has no e-mail address", "NOTIFICATION_KIND_ORDER_CONFIRMED",
    )  # fmt: skip
    changed = Customer(customer_id=customer_id, email=f"{customer_id}@shop.example")
    await customers.UpdateCustomer(UpdateCustomerRequest(customer=changed), timeout=TIMEOUT)
    retried = await polymart(shop, "notification", "retry", told["notification_id"])
    assert "attempt 2 is due" in retried.out
    (done,) = await until(processed, "the notification to be delivered")
    assert (done["attempt"], done["message_id"].count(told["notification_id"])) == (2, 1)
    again = await polymart(shop, "notification", "retry", told["notification_id"])
    assert (again.code, "NOTIFICATION_NOT_FAILED" in again.err) == (1, True)
    assert "must be one of" in (await polymart(shop, "notification", "list", "--status", "lost")).err
    assert (await polymart(shop, "notification", "retry")).code == 1
    await shop.invariants_hold()


async def test_a_dead_letter_is_listed_shown_replayed_and_dropped(shop: Shop) -> None:
    nats = Nats(shop.stack.info().nats_url, "command test")
    await nats.open()
    try:
        # A message of one type on the subject of another: notification_svc, which takes it, has no handler for it.
        lost = Envelope.new(OrderSettled(order_id=str(uuid4())), aggregate_id="lost", source="test")
        await nats.js.publish("evt.order.order.OrderConfirmed.lost", lost.data, headers=lost.headers())

        async def dead() -> object:
            return (await polymart(shop, "dlq", "list", "--json")).json()

        (entry,) = await until(dead, "the dead letter")  # type: ignore[misc]
        assert entry["id"] == lost.id
        number = str(entry["number"])
        shown = (await polymart(shop, "dlq", "show", number)).json()
        assert shown["message"]["order_id"] == lost.payload.order_id
        replayed = await polymart(shop, "dlq", "replay", number)
        assert (replayed.code, "sent again" in replayed.out) == (0, True)
        gone = await polymart(shop, "dlq", "show", number)
        assert (gone.code, gone.err) == (1, f"polymart: no dead letter {number}\n")
        (back,) = await until(dead, "it to fail again")  # type: ignore[misc]
        assert (back["id"], back["replays"]) == (lost.id, 1)
        number = str(back["number"])
        unsure = await polymart(shop, "dlq", "drop", number)
        assert (unsure.code, "for good?" in unsure.out) == (1, True)
        assert (await polymart(shop, "dlq", "show", number)).code == 0
        dropped = await polymart(shop, "dlq", "drop", number, "--yes")
        assert (dropped.code, dropped.out) == (0, f"{number}: dropped\n")
        assert not await dead()
        gone = await polymart(shop, "dlq", "drop", number, "--yes")
        assert (gone.code, gone.err) == (1, f"polymart: no dead letter {number}\n")
    finally:
        await nats.close()
    await shop.invariants_hold()


async def test_status_tells_every_services_health_and_memory(shop: Shop) -> None:
    ended = await polymart(shop, "status", "--json")
    assert ended.code == 0
    states = ended.json()
    assert len(states) == 8
    assert {state["health"] for state in states.values()} == {"SERVING"}
    assert all(state["pss_bytes"] > 1_000_000 for state in states.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("order", "place", "no-such-sku"), "INVALID_ARGUMENT: lines[0].sku: "),
        (("order", "place", "a=few"), "a=few: the quantity after = must be a whole number"),
        (("order", "show", str(uuid4())), "NOT_FOUND: no order "),
        (("order", "show", "7"), "INVALID_ARGUMENT: order_id: must be a UUID"),
        (("import", "/nowhere/at/all"), "/nowhere/at/all: No such file or directory"),
        (("search", "x", "--attribute", "colour"), "--attribute colour: write it as NAME=VALUE"),
    ],
)
async def test_an_error_is_one_line_that_says_what_is_wrong(shop: Shop, arguments: tuple[str, ...], said: str) -> None:
    ended = await polymart(shop, *arguments)
    assert ended.code == 1
    assert ended.err.startswith(f"polymart: {said}")
    assert ended.err.count("\n") == 1


async def test_without_a_stack_it_says_how_to_start_one(tmp_path: Path) -> None:
    ended = await polymart(tmp_path, "order", "list")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "start one with `polymart up`" in ended.err


async def test_a_stack_that_cannot_start_ends_with_one_line(shop: Shop, tmp_path: Path) -> None:
    for settings in ({"POLYMART_NATS_URL": "http://127.0.0.1"}, {"POLYMART_MONGOD": "/nowhere/mongod"}):
        ended = await polymart(tmp_path, "up", **settings)
        assert (ended.code, ended.err.count("\n")) == (1, 1)
        (name,) = settings
        assert name in ended.err
    taken = await polymart(shop, "up")
    assert (taken.code, taken.err.count("\n")) == (1, 1)
    assert "a stack already runs here" in taken.err
