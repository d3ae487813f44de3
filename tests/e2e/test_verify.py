"""`polymart verify` sees one altered row or document of every kind, and names it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest
from pymongo import AsyncMongoClient

from chassis.messaging.nats import Nats
from ops.audit.stores import open_stores
from ops.verify import verify
from search_svc.adapters.schema import PRODUCTS
from tests.e2e.command import polymart
from tests.e2e.shop import Shop


@dataclass(frozen=True, slots=True)
class Sale:
    """A confirmed and a declined order of one SKU, by a customer with an address."""

    sku: str
    product_id: str
    confirmed: str
    declined: str
    customer: str


@pytest.fixture(scope="module")
async def sale(shop: Shop) -> Sale:
    (sku,), customer = await shop.product(stock=10), await shop.customer()
    confirmed = await shop.settled(await shop.place(sku, customer=customer))
    declined = await shop.settled(await shop.place(sku, customer=customer, token="tok_declined"))
    await shop.invariants_hold()
    return Sale(sku, sku.rpartition("-")[0], confirmed.order_id, declined.order_id, customer)


@asynccontextmanager
async def altered(shop: Shop, service: str, change: str, undo: str, variable: str = "POSTGRES") -> AsyncIterator[None]:
    """A change made with the service's own role, behind the service's back, and taken back."""
    url = shop.stack.environment(service)[f"POLYMART_{variable}_URL"]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(change)
        try:
            yield
        finally:
            await connection.execute(undo)
    finally:
        await connection.close()


# Only its owner can alter the ledger, and only like this.
LEDGER = "ALTER TABLE entries DISABLE TRIGGER entries_stay; {}; ALTER TABLE entries ENABLE TRIGGER entries_stay"

# service, what is done, what takes it back, and what must be named; {…} are fields of Sale
ALTERATIONS = {
    "an order that isn't settled": (
        "order_svc", "UPDATE orders SET settled = false WHERE order_id = '{confirmed}'",
        "UPDATE orders SET settled = true WHERE order_id = '{confirmed}'", "{confirmed}"),
    "a read model that differs from the events": (
        "order_svc", "UPDATE orders SET version = version + 1 WHERE order_id = '{confirmed}'",
        "UPDATE orders SET version = version - 1 WHERE order_id = '{confirmed}'", "{confirmed}"),
    "an event that is gone": (
        "order_svc", "CREATE TABLE kept AS SELECT * FROM events WHERE stream_id = '{confirmed}' AND version = 3; "
        "DELETE FROM events WHERE stream_id = '{confirmed}' AND version = 3",
        "INSERT INTO events SELECT * FROM kept; DROP TABLE kept", "{confirmed}"),
    "a price that differs from the catalog": (
        "order_svc", "UPDATE prices SET price_nanos = price_nanos + 1 WHERE sku = '{sku}'",
        "UPDATE prices SET price_nanos = price_nanos - 1 WHERE sku = '{sku}'", "{sku}"),
    "stock that no movement explains": (
        "inventory_svc", "UPDATE stock SET on_hand = on_hand + 1 WHERE sku = '{sku}'",
        "UPDATE stock SET on_hand = on_hand - 1 WHERE sku = '{sku}'", "{sku}"),
    "units at a location that no movement brought there": (
        "inventory_svc", "INSERT INTO locations (location_id, display_name, priority) VALUES ('attic', '', 9); "
        "INSERT INTO stock (sku, location_id, on_hand, reserved) VALUES ('{sku}', 'attic', 3, 0)",
        "DELETE FROM stock WHERE location_id = 'attic'; DELETE FROM locations WHERE location_id = 'attic'",
        "SKU {sku} at attic has 3 on hand"),
    "movements of stock that is gone": (
        "inventory_svc", "CREATE TABLE kept AS SELECT * FROM stock WHERE sku = '{sku}'; "
        "DELETE FROM stock WHERE sku = '{sku}'", "INSERT INTO stock SELECT * FROM kept; DROP TABLE kept",
        "SKU {sku} at main has movements"),
    "a movement that never was": (
        "inventory_svc", "INSERT INTO movements (sku, location_id, kind, on_hand_delta, reserved_delta, operation_id) "
        "VALUES ('{sku}', 'main', 'ADJUST', -1, 0, 'verify')", "DELETE FROM movements WHERE operation_id = 'verify'",
        "SKU {sku} at main"),
    "more units sold than there were": (
        "inventory_svc", "INSERT INTO movements (sku, location_id, kind, on_hand_delta, reserved_delta, operation_id) "
        "SELECT '{sku}', 'main', 'ADJUST', delta, 0, 'verify' || delta FROM (VALUES (-99), (99)) AS v (delta)",
        "DELETE FROM movements WHERE operation_id LIKE 'verify%'", "SKU {sku} at main was sold beyond"),
    "an availability that the units don't mean": (
        "inventory_svc", "UPDATE items SET availability = 'LOW' WHERE sku = '{sku}'",
        "UPDATE items SET availability = 'IN_STOCK' WHERE sku = '{sku}'", "SKU {sku} is announced as LOW"),
    "a return of more than was bought": (
        "inventory_svc", "INSERT INTO movements "
        "(sku, location_id, kind, on_hand_delta, reserved_delta, order_id, operation_id) "
        "VALUES ('{sku}', 'main', 'RESTOCK', 2, 0, '{confirmed}', 'verify')",
        "DELETE FROM movements WHERE operation_id = 'verify'", "{confirmed} returned more than it took"),
    "units reserved for nobody": (
        "inventory_svc", "UPDATE stock SET reserved = reserved + 1 WHERE sku = '{sku}'",
        "UPDATE stock SET reserved = reserved - 1 WHERE sku = '{sku}'", "{sku}"),
    "a hold that a declined order kept": (
        "inventory_svc", "UPDATE holds SET state = 'RESERVED' WHERE order_id = '{declined}'",
        "UPDATE holds SET state = 'RELEASED' WHERE order_id = '{declined}'", "{declined}"),
    "units that left for another quantity": (
        "inventory_svc", "UPDATE reservations SET quantity = quantity + 1 WHERE order_id = '{confirmed}'",
        "UPDATE reservations SET quantity = quantity - 1 WHERE order_id = '{confirmed}'", "{confirmed}"),
    "a payment of another amount": (
        "payment_svc", "UPDATE payments SET amount = amount + 1 WHERE payment_id = '{confirmed}'",
        "UPDATE payments SET amount = amount - 1 WHERE payment_id = '{confirmed}'", "{confirmed}"),
    "a confirmed order that wasn't captured": (
        "payment_svc", "UPDATE payments SET status = 'AUTHORIZED' WHERE payment_id = '{confirmed}'",
        "UPDATE payments SET status = 'CAPTURED' WHERE payment_id = '{confirmed}'", "{confirmed}"),
    "money held for a declined order": (
        "payment_svc", "UPDATE payments SET status = 'CAPTURED' WHERE payment_id = '{declined}'",
        "UPDATE payments SET status = 'DECLINED' WHERE payment_id = '{declined}'", "{declined}"),
    "a capture that isn't what the order costs": (
        "payment_svc", "UPDATE payments SET captured = captured - 1 WHERE payment_id = '{confirmed}'",
        "UPDATE payments SET captured = captured + 1 WHERE payment_id = '{confirmed}'", "9.999999999 was captured"),
    "a refund that nobody made": (
        "payment_svc", "UPDATE payments SET refunded = 1 WHERE payment_id = '{confirmed}'",
        "UPDATE payments SET refunded = 0 WHERE payment_id = '{confirmed}'", "the provider did REFUND of 0.00"),
    "an entry of another amount": (
        "payment_svc", LEDGER.format("UPDATE entries SET amount = amount + 1 WHERE payment_id = '{confirmed}' "
        "AND operation = 'CAPTURE' AND account = 'SALES'"),
        LEDGER.format("UPDATE entries SET amount = amount - 1 WHERE payment_id = '{confirmed}' "
        "AND operation = 'CAPTURE' AND account = 'SALES'"), "the entries of CAPTURE of payment {confirmed} sum to"),
    "an operation that isn't booked": (
        "payment_svc", LEDGER.format("CREATE TABLE kept AS SELECT * FROM entries WHERE payment_id = '{confirmed}'; "
        "DELETE FROM entries WHERE payment_id = '{confirmed}'"),
        "INSERT INTO entries SELECT * FROM kept; DROP TABLE kept",
        "the provider did {confirmed}:CAPTURE, which the ledger lacks"),
    "an account that doesn't say what the payment does": (
        "payment_svc", LEDGER.format("UPDATE entries SET account = 'REFUNDS' WHERE payment_id = '{confirmed}' "
        "AND account = 'SALES'"),
        LEDGER.format("UPDATE entries SET account = 'SALES' WHERE payment_id = '{confirmed}' "
        "AND account = 'REFUNDS'"), "on SALES for it instead of"),
    "an operation booked that nobody did": (
        "payment_svc", "INSERT INTO attempts (payment_id, operation, operation_id, amount, state, causation_id, "
        "correlation_id) VALUES ('{confirmed}', 'REFUND', 'x', 0, 'APPROVED', gen_random_uuid(), ''); "
        "INSERT INTO entries (payment_id, operation, operation_id, account, currency, amount) "
        "VALUES ('{confirmed}', 'REFUND', 'x', 'PROVIDER', 'GBP', 0)",
        LEDGER.format("DELETE FROM entries WHERE payment_id = '{confirmed}' AND operation = 'REFUND'; "
        "DELETE FROM attempts WHERE payment_id = '{confirmed}' AND operation = 'REFUND'"),
        "REFUND x of payment {confirmed}, which the provider never did"),
    "a notification that never ended": (
        "notification_svc", "UPDATE notifications SET stage = 2 WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET stage = 4 WHERE order_id = '{confirmed}'", "is still IN_PROGRESS"),
    "a mail without a Message-ID": (
        "notification_svc",
        "UPDATE notifications SET failure = message_id, message_id = '' "
        "WHERE order_id = '{declined}'",
        "UPDATE notifications SET message_id = failure, failure = '' WHERE order_id = '{declined}'",
        "PROCESSED without a Message-ID"),
    "a customer nobody told": (
        "notification_svc", "UPDATE notifications SET order_id = 'x' || order_id WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET order_id = '{confirmed}' WHERE order_id = 'x{confirmed}'", "{confirmed}"),
    "an erased customer whose data can be opened": (
        "customer_svc", "UPDATE customers SET erased = true, display_name = '', email = '' "
        "WHERE customer_id = '{customer}'",
        "UPDATE customers SET erased = false, display_name = '{customer}', email = '{customer}@shop.example' "
        "WHERE customer_id = '{customer}'", "customer {customer} was erased"),
    "what an erased customer was told": (
        "customer_svc", "UPDATE customers SET erased = true, display_name = '', email = '' "
        "WHERE customer_id = '{customer}'",
        "UPDATE customers SET erased = false, display_name = '{customer}', email = '{customer}@shop.example' "
        "WHERE customer_id = '{customer}'", "still says what an erased customer was told"),
    "a customer whose key is gone": (
        "customer_svc", "CREATE TABLE kept_keys AS SELECT * FROM customer_keys WHERE customer_id = '{customer}'; "
        "DELETE FROM customer_keys WHERE customer_id = '{customer}'",
        "INSERT INTO customer_keys SELECT * FROM kept_keys; DROP TABLE kept_keys", "customer {customer} has no key"),
    "a message that stays in an outbox": (
        "customer_svc", "INSERT INTO outbox (id, aggregate_id, subject, headers, data) VALUES "
        "(gen_random_uuid(), 'x', 'to.no.stream', '{{}}', '')",
        "DELETE FROM outbox WHERE subject = 'to.no.stream'", "outbox of customer_svc"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERATIONS)
async def test_an_altered_row_is_found_and_named(shop: Shop, sale: Sale, name: str) -> None:
    service, change, undo, named = ALTERATIONS[name]
    facts = {field: getattr(sale, field) for field in Sale.__slots__}
    async with altered(shop, service, change.format(**facts), undo.format(**facts)):
        report = await verify(shop.stack.info())
    assert any(named.format(**facts) in finding.text for finding in report.findings), report.findings
    assert (await verify(shop.stack.info())).findings == []


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (
            "INSERT INTO operations SELECT key || '-2', payment_id, kind, amount, currency, token, outcome, reason, "
            "reference, at FROM operations WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
            "DELETE FROM operations WHERE payment_id = '{0}' AND key LIKE '%-2'",
        ),
        (
            "UPDATE operations SET outcome = 'REFUSED' WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
            "UPDATE operations SET outcome = 'APPROVED' WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
        ),
        (
            "UPDATE operations SET amount = amount + 1 WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
            "UPDATE operations SET amount = amount - 1 WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
        ),
    ],
    ids=["charged twice", "never charged", "charged another amount"],
)
async def test_the_providers_record_is_compared(shop: Shop, sale: Sale, change: str, undo: str) -> None:
    paid = sale.confirmed
    async with altered(shop, "payment_svc", change.format(paid), undo.format(paid), "PROVIDER"):
        report = await verify(shop.stack.info())
    assert any(paid in finding.text for finding in report.findings), report.findings


async def test_an_altered_document_of_the_index_is_found_and_named(shop: Shop, sale: Sale) -> None:
    async with open_stores(shop.stack.info()) as stores:
        client = stores.index.client
        original = (await client.get(index=PRODUCTS, id=sale.product_id))["_source"]
        try:
            for change in ({"version": original["version"] + 1}, {"name": "altered"}):
                await client.index(index=PRODUCTS, id=sale.product_id, document={**original, **change})
                report = await verify(shop.stack.info())
                assert any(sale.product_id in finding.text for finding in report.findings), change
        finally:
            await client.index(index=PRODUCTS, id=sale.product_id, document=original)


async def test_an_altered_product_is_found_and_named(shop: Shop, sale: Sale) -> None:
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(shop.stack.info().mongodb_url)
    products = client["catalog"]["products"]
    try:
        await products.update_one({"_id": sale.product_id}, {"$set": {"name": "altered"}})
        report = await verify(shop.stack.info())
        assert any(sale.product_id in finding.text for finding in report.findings)
    finally:
        await products.update_one({"_id": sale.product_id}, {"$set": {"name": f"Test product {sale.product_id}"}})
        await client.close()


async def test_a_dead_letter_and_an_unknown_type_are_found(shop: Shop) -> None:
    nats = Nats(shop.stack.info().nats_url, "verify test")
    await nats.open()
    try:
        dead = await nats.js.publish("dlq.test.x", b"", headers={"ce-id": "dead-1", "Polymart-Consumer": "test"})
        strange = await nats.js.publish("evt.order.order.OrderForgotten.1", b"")
        texts = [finding.text for finding in (await verify(shop.stack.info())).findings]
        assert any("dead-1" in text for text in texts)
        assert any("OrderForgotten" in text for text in texts)
        await nats.js.delete_msg("DLQ", dead.seq)
        await nats.js.delete_msg("EVT_ORDER", strange.seq)
    finally:
        await nats.close()
    assert (await verify(shop.stack.info())).findings == []


async def test_the_command_ends_with_1_and_names_the_thing(shop: Shop, sale: Sale) -> None:
    ended = await polymart(shop, "verify", "--json")
    assert (ended.code, ended.json()["findings"]) == (0, [])
    service, change, undo, _ = ALTERATIONS["stock that no movement explains"]
    facts = {field: getattr(sale, field) for field in Sale.__slots__}
    async with altered(shop, service, change.format(**facts), undo.format(**facts)):
        ended = await polymart(shop, "verify", "--json")
    assert ended.code == 1
    assert sale.sku in ended.json()["findings"][0]["text"]
