"""`polymart verify` sees one altered row or document of every kind, and names it."""

import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import asyncpg
import pytest
from polymart.catalog.v1.category_pb2 import Category
from polymart.catalog.v1.taxonomy_service_pb2 import CreateCategoryRequest
from polymart.inventory.v1.inventory_service_pb2 import SetStockRequest, StockCount
from polymart.order.v1.order_pb2 import OrderUnits
from polymart.order.v1.order_service_pb2 import ReturnOrderLinesRequest
from pymongo import AsyncMongoClient

from chassis.errors import Unavailable
from chassis.ids import derived_id
from chassis.messaging.nats import Nats
from ops.audit.stores import open_stores
from ops.verify import verify
from search_svc.adapters.mappings import CATEGORIES, PARTS, PRODUCTS
from tests.e2e.alterations import ALTERATIONS, CHARGES
from tests.e2e.command import polymart
from tests.e2e.shop import TIMEOUT, Shop


@dataclass(frozen=True, slots=True)
class Sale:
    """A confirmed and a declined order of one SKU, and one of which a part came back, by a customer with an address."""

    sku: str
    product_id: str
    confirmed: str
    declined: str
    returned: str
    customer: str

    def facts(self) -> dict[str, str]:
        """Its fields, and ids of the customer's welcome and of notifications that aren't there."""
        return {field: getattr(self, field) for field in self.__slots__} | {
            "welcome": derived_id("notification", "WELCOME", self.customer),
            "low": derived_id("notification", "LOW_STOCK", self.customer),
            "absent": derived_id("notification", "WELCOME", "absent"),
            "cancelled": derived_id("notification", "ORDER_CANCELLED", self.confirmed),
        }


@pytest.fixture(scope="module")
async def sale(shop: Shop) -> Sale:
    (sku,), customer = await shop.product(stock=10), await shop.customer()
    confirmed = await shop.settled(await shop.place(sku, customer=customer))
    declined = await shop.settled(await shop.place(sku, customer=customer, token="tok_declined"))
    returned = await shop.settled(await shop.place(sku, quantity=2, customer=customer))
    await shop.delivered(await shop.ship(returned))
    request = ReturnOrderLinesRequest(
        order_id=returned.order_id,
        request_id=str(uuid4()),
        lines=[OrderUnits(line_number=1, quantity=1)],
        restock=True,
        operator="bob",
    )
    await shop.clients.orders.ReturnOrderLines(request, timeout=TIMEOUT)
    await shop.settled(returned)
    await shop.invariants_hold()
    return Sale(sku, sku.rpartition("-")[0], confirmed.order_id, declined.order_id, returned.order_id, customer)


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


@pytest.mark.parametrize("name", ALTERATIONS)
async def test_an_altered_row_is_found_and_named(shop: Shop, sale: Sale, name: str) -> None:
    service, change, undo, named = ALTERATIONS[name]
    facts = sale.facts()
    async with altered(shop, service, change.format(**facts), undo.format(**facts)):
        report = await verify(shop.stack.info())
    assert any(named.format(**facts) in finding.text for finding in report.findings), report.findings
    assert (await verify(shop.stack.info())).findings == []


@pytest.mark.parametrize("name", CHARGES)
async def test_the_providers_record_is_compared(shop: Shop, sale: Sale, name: str) -> None:
    change, undo, said = (text.format(sale.confirmed) for text in CHARGES[name])
    async with altered(shop, "payment_svc", change, undo, "PROVIDER"):
        report = await verify(shop.stack.info())
    assert said in [finding.text for finding in report.findings], report.findings
    assert (await verify(shop.stack.info())).findings == []


# What a query reads and what an answer shows, a field each.
MISTAKES: dict[str, object] = {
    "version": 99, "deleted": True, "shown": False, "name": "altered", "brand": "altered", "category_id": "altered",
    "category_version": 9, "categories": ["altered"], "text": "altered", "codes": ["altered"],
    "attributes": ["altered"], "in_stock": False, "prices": ["GBP0000000000000000001"],
    "price_from": "GBP0000000000000000001", "popularity": 9.75, "created": 7, "availability": "OUT",
    "title": "altered", "values": "altered", "description": "altered", "things": ["altered"], "spelling": "altered",
    "category_levels": ["altered"], "price_steps": ["altered"], "numbers": ["altered"], "number_steps": ["altered"],
}  # fmt: skip
HIDDEN_MISTAKES: dict[str, object] = {
    "description": "altered", "category_path": ["altered"], "tags": ["altered"],
    "attributes": [{"name": "altered", "flag": True}], "variants": [], "availability": [],
    "popularity_version": 2**62,
}  # fmt: skip


@pytest.mark.slow
async def test_each_altered_field_of_the_index_is_found_and_named(shop: Shop, sale: Sale) -> None:
    async with open_stores(shop.stack.info()) as stores:
        client = stores.index.client
        original = (await client.get(index=PRODUCTS, id=sale.product_id))["_source"]
        assert original.keys() - MISTAKES.keys() == {"product_id", "rest"}
        assert original["rest"].keys() == HIDDEN_MISTAKES.keys()
        changed = {field: {**original, field: value} for field, value in MISTAKES.items()}
        for field, value in HIDDEN_MISTAKES.items():
            changed[f"rest.{field}"] = {**original, "rest": {**original["rest"], field: value}}
        try:
            for field, document in changed.items():
                await client.index(index=PRODUCTS, id=sale.product_id, document=document)
                texts = [finding.text for finding in (await verify(shop.stack.info())).findings]
                assert len(texts) == 1, texts
                assert texts[0].startswith(f"product {sale.product_id}"), texts
                assert field in texts[0], texts
        finally:
            await client.index(index=PRODUCTS, id=sale.product_id, document=original)


async def test_an_altered_availability_of_what_no_product_has_is_found(shop: Shop) -> None:
    sku = f"loose-{secrets.token_hex(4)}"
    await shop.clients.inventory.SetStock(SetStockRequest(counts=[StockCount(sku=sku, on_hand=9)]), timeout=TIMEOUT)
    await shop.invariants_hold()
    async with open_stores(shop.stack.info()) as stores:
        client = stores.index.client
        original = (await client.get(index=PARTS, id=sku))["_source"]
        try:
            for change in ({"level": 3}, {"version": original["version"] + 1}):
                await client.index(index=PARTS, id=sku, document={**original, **change})
                texts = [finding.text for finding in (await verify(shop.stack.info())).findings]
                assert [text.partition(":")[0] for text in texts] == [f"SKU {sku}"], texts
            await client.delete(index=PARTS, id=sku)
            (finding,) = (await verify(shop.stack.info())).findings
            assert finding.text.startswith(f"SKU {sku}:")
        finally:
            await client.index(index=PARTS, id=sku, document=original)
        try:
            await client.index(index=PARTS, id="never-announced", document=original, refresh=True)
            (finding,) = (await verify(shop.stack.info())).findings
            assert finding.text.startswith("the index has the availability of")
        finally:
            await client.delete(index=PARTS, id="never-announced", refresh=True)
    await shop.invariants_hold()


async def test_an_altered_path_of_what_no_product_is_in_is_found(shop: Shop) -> None:
    request = CreateCategoryRequest(category=Category(name=f"Empty {secrets.token_hex(4)}"))
    category = await shop.clients.taxonomy.CreateCategory(request, timeout=TIMEOUT)
    await shop.invariants_hold()
    async with open_stores(shop.stack.info()) as stores:
        client = stores.index.client
        original = (await client.get(index=CATEGORIES, id=category.category_id))["_source"]
        try:
            await client.index(index=CATEGORIES, id=category.category_id, document={**original, "path": ["altered"]})
            (finding,) = (await verify(shop.stack.info())).findings
            assert finding.text.startswith(f"category {category.category_id}: path is ['altered'] instead of")
        finally:
            await client.index(index=CATEGORIES, id=category.category_id, document=original)


async def test_a_document_of_a_product_that_never_was_is_found(shop: Shop, sale: Sale) -> None:
    async with open_stores(shop.stack.info()) as stores:
        client = stores.index.client
        original = (await client.get(index=PRODUCTS, id=sale.product_id))["_source"]
        stranger = {**original, "product_id": "stranger"}
        try:
            await client.index(index=PRODUCTS, id="stranger", document=stranger, refresh=True)
            (finding,) = (await verify(shop.stack.info())).findings
            assert finding.text == "product stranger is in the index and not in the catalog"
        finally:
            await client.delete(index=PRODUCTS, id="stranger", refresh=True)


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
    facts = sale.facts()
    async with altered(shop, service, change.format(**facts), undo.format(**facts)):
        ended = await polymart(shop, "verify", "--json")
    assert ended.code == 1
    assert sale.sku in ended.json()["findings"][0]["text"]


@pytest.mark.parametrize(
    ("engine", "named"),
    [("postgres", "PostgreSQL"), ("mongodb", "MongoDB"), ("elasticsearch", "the search engine"), ("nats", "NATS")],
)
async def test_an_engine_that_stands_still_is_named_in_one_line(shop: Shop, engine: str, named: str) -> None:
    await shop.stack.kill_engine(engine, signal.SIGSTOP)
    try:
        ended = await polymart(shop, "verify", "--wait", "0")
    finally:
        await shop.stack.kill_engine(engine, signal.SIGCONT)
    assert ended.code == 1
    assert ended.err.startswith(f"polymart: {named}")
    assert ended.err.count("\n") == 1
    await shop.invariants_hold()


async def test_an_auditor_who_is_refused_is_told_so(shop: Shop) -> None:
    info = shop.stack.info()
    changed = {owner: url.replace("@", "x@", 1) for owner, url in info.auditors.items()}
    with pytest.raises(Unavailable, match="PostgreSQL can't be reached: password authentication failed"):
        await verify(replace(info, auditors=changed))
