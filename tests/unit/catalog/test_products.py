"""The use cases over products in memory."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_svc.adapters.memory import MemoryProducts, MemoryTaxonomy
from catalog_svc.application.ports import Filter, Order, Position, Saved
from catalog_svc.application.products import (
    Change,
    New,
    Question,
    batch_get_products,
    batch_get_variants,
    create_product,
    delete_product,
    get_product,
    list_products,
    product_revisions,
    update_product,
)
from catalog_svc.application.taxonomy import create_category, create_product_type, update_category
from catalog_svc.domain.edits import Edit, parse
from catalog_svc.domain.product import FIELDS, Details, Product, ProductEvent, Request, Status, Variant
from catalog_svc.domain.product_type import Definition, Kind
from chassis.clock import ManualClock
from chassis.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Unavailable
from chassis.ids import sequential_ids
from chassis.money import Money
from tests.unit.catalog import strategies as some

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def details(*skus: str, name: str = "Mug") -> Details:
    return Details(name=name, variants=tuple(Variant(sku, Money("GBP", 100)) for sku in skus))


class Catalog:
    """The use cases with their ports filled in."""

    def __init__(self) -> None:
        self.store, self.taxonomy, self.clock, self.new_id = (
            MemoryProducts(), MemoryTaxonomy(), ManualClock(), sequential_ids()
        )  # fmt: skip

    @property
    def _ports(self) -> Any:
        return {"products": self.store, "taxonomy": self.taxonomy, "clock": self.clock, "new_id": self.new_id}

    async def create(self, product_id: str, given: Details, **more: Any) -> Product:
        return await create_product(New(product_id, given, **more), **self._ports)

    async def delete(self, product_id: str, etag: str = "") -> None:
        await delete_product(product_id, etag, "ann", products=self.store, clock=self.clock)

    async def category(self, category_id: str, parent_id: str = "") -> None:
        ports: Any = {"categories": self.taxonomy, "clock": self.clock, "new_id": self.new_id}
        await create_category(category_id, parent_id, category_id.title(), **ports)

    async def page(self, question: Question, after: Position | None = None, size: int = 99) -> tuple[list[str], bool]:
        found, more = await list_products(question, after, size, products=self.store, taxonomy=self.taxonomy)
        return [product.product_id for product in found], more

    async def update(self, change: Change) -> Product:
        return await update_product(change, **self._ports)


def edits(*paths: str) -> list[Edit]:
    return [parse(path) for path in paths]


async def test_a_product_without_an_id_gets_one() -> None:
    catalog = Catalog()
    product = await catalog.create("", details("a"))
    assert await get_product(product.product_id, products=catalog.store) == product


async def test_ids_and_skus_are_taken_once() -> None:
    catalog = Catalog()
    await catalog.create("p", details("a"))
    with pytest.raises(AlreadyExists) as refused:
        await catalog.create("p", details("b"))
    assert refused.value.reason == "PRODUCT_EXISTS"
    with pytest.raises(AlreadyExists) as refused:
        await catalog.create("q", details("b", "a"))
    assert (refused.value.reason, refused.value.metadata) == ("SKU_TAKEN", {"skus": "a"})
    other = await catalog.create("r", details("c"))
    with pytest.raises(AlreadyExists):
        await catalog.update(Change("r", details("a"), edits("variants"), other.etag))


async def test_a_deleted_product_is_gone_and_can_be_created_again() -> None:
    catalog = Catalog()
    product = await catalog.create("p", details("a"))
    with pytest.raises(Aborted):
        await catalog.delete("p", "stale")
    await catalog.delete("p", product.etag)
    for gone in (get_product("p", products=catalog.store), catalog.delete("p")):
        with pytest.raises(NotFound):
            await gone
    assert await batch_get_products(["p"], products=catalog.store) == []
    assert (await catalog.create("p", details("a"))).version == 3


async def test_an_etag_decides_between_two_updates() -> None:
    catalog = Catalog()
    before = await catalog.create("p", details("a"))
    changes = [Change("p", details("a", name=f"Mug {n}"), edits("name"), before.etag) for n in range(5)]
    results = await asyncio.gather(*map(catalog.update, changes), return_exceptions=True)
    assert sum(isinstance(result, Product) for result in results) == 1
    assert {getattr(r, "reason", "") for r in results if not isinstance(r, Product)} == {"STALE_ETAG"}


@settings(max_examples=40)
@given(some.details(), some.details(), st.sets(st.sampled_from(FIELDS)))
async def test_an_update_changes_the_fields_of_its_mask_and_no_other(
    before: Details, given_: Details, fields: set[str]
) -> None:
    catalog = Catalog()
    created = await catalog.create("p", before)
    after = await catalog.update(Change("p", given_, edits(*fields)))
    for field in FIELDS:
        source = given_ if field in fields else before
        assert getattr(after.details, field) == getattr(source, field)
    changed = any(repr(getattr(before, field)) != repr(getattr(given_, field)) for field in fields)
    assert (after.version, after.etag != created.etag) == ((2, True) if changed else (1, False))


async def test_an_update_that_makes_the_product_too_large_is_refused() -> None:
    catalog = Catalog()
    half = {f"fact {n}": "x" * 4_000 for n in range(60)}
    await catalog.create("p", replace(details("a"), attributes=half))
    with pytest.raises(InvalidArgument) as refused:
        await catalog.update(Change("p", replace(details("a"), description="ä" * 20_000), edits("description")))
    assert [v.field for v in refused.value.violations] == ["product.description"]


class Contested(MemoryProducts):
    """Somebody else is faster, `losses` times."""

    losses = 0
    outcome = Saved.STALE

    async def _save(self, event: ProductEvent) -> Saved:
        if self.losses:
            self.losses -= 1
            return self.outcome
        return await super()._save(event)


async def test_a_write_without_an_etag_looks_again_when_others_were_faster() -> None:
    catalog = Catalog()
    catalog.store = contested = Contested()
    await catalog.create("p", details("a"))
    contested.losses = 3
    assert (await catalog.update(Change("p", details("a", name="Cup"), edits("name")))).version == 2
    contested.losses = 99
    with pytest.raises(Aborted):
        await catalog.update(Change("p", details("a", name="Jug"), edits("name")))
    contested.outcome = Saved.BACKED_UP
    with pytest.raises(Unavailable) as refused:
        await catalog.update(Change("p", details("a", name="Jug"), edits("name")))
    assert refused.value.reason == "OUTBOX_FULL"


async def test_batches_answer_in_the_order_asked_for_and_leave_out_what_is_missing() -> None:
    catalog = Catalog()
    for product_id in ("p", "q", "r"):
        await catalog.create(product_id, details(f"{product_id}1", f"{product_id}2"))
    found = await batch_get_products(["r", "x", "p", "r"], products=catalog.store)
    assert [product.product_id for product in found] == ["r", "p"]
    sold = await batch_get_variants(["q2", "x", "p1", "q1"], products=catalog.store)
    assert [(s.product_id, s.variant.sku) for s in sold] == [("q", "q2"), ("p", "p1"), ("q", "q1")]


@settings(max_examples=40)
@given(st.sets(some.skus, max_size=12), st.integers(1, 5))
async def test_pages_follow_one_another_without_gaps(product_ids: set[str], size: int) -> None:
    catalog = Catalog()
    for product_id in product_ids:
        await catalog.create(product_id, details(product_id))
    seen: list[str] = []
    more = True
    while more:
        page, more = await catalog.page(Question(), Position(seen[-1], NOON) if seen else None, size)
        seen += page
        assert len(page) == size or not more
    assert seen == sorted(product_ids)


async def test_a_request_is_answered_with_what_it_created_before() -> None:
    catalog = Catalog()
    request = Request("r", "hash")
    created = await catalog.create("", details("a"), request=request)
    assert await catalog.create("", details("a"), request=request) == created
    changed = await catalog.update(Change(created.product_id, details("a", name="Cup"), edits("name")))
    assert await catalog.create("", details("a"), request=request) == changed
    with pytest.raises(AlreadyExists) as refused:
        await catalog.create("q", details("b"), request=replace(request, fingerprint="other"))
    assert refused.value.reason == "REQUEST_ID_REUSED"
    await catalog.delete(created.product_id)
    with pytest.raises(NotFound):
        await catalog.create("", details("a"), request=request)


async def test_parts_of_a_product_are_changed_and_removed_and_the_rest_stays() -> None:
    catalog = Catalog()
    before = replace(details("a", "b.1"), attributes={"colour": "blue", "size.inner": 3.0, "old": True})
    await catalog.create("p", before)
    dear = replace(details("a", "b.1", "c"), attributes={"colour": "red", "size.inner": 4.0})
    dear = replace(dear, variants=tuple(replace(v, name="new", price=Money("GBP", 900)) for v in dear.variants))
    after = await catalog.update(
        Change("p", dear, edits("attributes.`size.inner`", "attributes.old", "variants.`b.1`.price", "variants.c"))
    )
    assert after.details.attributes == {"colour": "blue", "size.inner": 4.0}
    assert [(v.sku, v.name, v.price.nanos) for v in after.details.variants] == [
        ("a", "", 100), ("b.1", "", 900), ("c", "new", 900),
    ]  # fmt: skip
    after = await catalog.update(Change("p", details(), edits("variants.a")))
    assert after.details.skus == ("b.1", "c")
    for path in ("variants.none.price", "variants.c.price"):
        with pytest.raises(InvalidArgument) as refused:
            await catalog.update(Change("p", details("none"), edits(path)))
        assert [v.field for v in refused.value.violations] == ["update_mask"]
    with pytest.raises(InvalidArgument) as refused:
        await catalog.update(Change("p", details(), edits("variants.c", "variants.`b.1`")))
    assert [v.field for v in refused.value.violations] == ["product.variants"]


@pytest.mark.parametrize(
    "path", ["", "colour", "etag", "name.x", "attributes.", "attributes.a.b", "variants.a.sku", "`name", "name."]
)
def test_what_is_no_path_of_a_product_cannot_be_changed(path: str) -> None:
    with pytest.raises(ValueError, match=r"is not a path|can't be changed"):
        parse(path)


async def test_a_product_is_held_to_its_category_and_type() -> None:
    catalog = Catalog()
    await catalog.category("cups")
    ports: Any = {"types": catalog.taxonomy, "clock": catalog.clock, "new_id": catalog.new_id}
    definitions = (
        Definition("height", Kind.NUMBER, unit="mm", required=True),
        Definition("colour", Kind.ENUM, values=("red", "blue")),
        Definition("safe", Kind.BOOLEAN),
        Definition("story", Kind.TEXT),
    )
    await create_product_type("cup", "Cup", definitions, **ports)
    bad = {"colour": "green", "safe": "yes", "story": 1.0, "free": "whatever"}
    given = replace(details("a"), category_id="mugs", product_type_id="cup", attributes=bad)
    with pytest.raises(InvalidArgument) as refused:
        await catalog.create("p", given)
    assert {v.field: v.description for v in refused.value.violations} == {
        "product.category_id": "there is no category 'mugs'",
        'product.attributes["height"]': "is required of type cup",
        'product.attributes["colour"]': "must be one of 'red', 'blue'",
        'product.attributes["safe"]': "must be a boolean",
        'product.attributes["story"]': "must be text",
    }
    good = {"height": 95.0, "colour": "red", "safe": True, "story": "", "free": "whatever"}
    await catalog.create("p", replace(given, category_id="cups", attributes=good))
    with pytest.raises(InvalidArgument) as refused:
        await catalog.update(Change("p", replace(given, attributes={"height": True}), edits("attributes.height")))
    assert [v.description for v in refused.value.violations] == ["must be a number of mm"]
    with pytest.raises(InvalidArgument):
        await catalog.update(Change("p", replace(given, product_type_id="none"), edits("product_type_id")))


async def test_the_last_changes_are_remembered_over_deletions() -> None:
    catalog = Catalog()
    await catalog.create("p", details("a"), by="ann")
    await catalog.update(Change("p", details("a", name="Cup"), edits("name"), by="bob"))
    await catalog.delete("p")
    known = await product_revisions("p", products=catalog.store)
    assert [(r.version, r.by, r.kind.name, r.changed) for r in known] == [
        (3, "ann", "DELETED", ()), (2, "bob", "UPDATED", ("name",)), (1, "ann", "CREATED", ()),
    ]  # fmt: skip
    with pytest.raises(NotFound):
        await product_revisions("q", products=catalog.store)


async def test_lists_are_filtered_and_ordered() -> None:
    catalog = Catalog()
    for category, parent in (("home", ""), ("lamps", "home"), ("garden", "")):
        await catalog.category(category, parent)
    made = [("a", "home", Status.ACTIVE), ("b", "lamps", Status.DRAFT), ("c", "garden", Status.ACTIVE), ("d", "lamps",
            Status.ACTIVE)]  # fmt: skip
    for product_id, category, status in made:
        catalog.clock.advance(timedelta(minutes=1))
        await catalog.create(product_id, replace(details(product_id), category_id=category, status=status))
    catalog.clock.advance(timedelta(minutes=1))
    changed = await catalog.update(Change("b", details("b", name="Cup"), edits("name")))
    assert await catalog.page(Question("home")) == (["a", "b", "d"], False)
    assert await catalog.page(Question("home", Filter(status=Status.ACTIVE))) == (["a", "d"], False)
    assert await catalog.page(Question("lamps")) == (["b", "d"], False)
    oldest, latest = (Question(order=o) for o in (Order.OLDEST_CHANGE_FIRST, Order.LATEST_CHANGE_FIRST))
    assert await catalog.page(oldest, size=3) == (["a", "c", "d"], True)
    assert await catalog.page(latest, Position("b", changed.update_time)) == (["d", "c", "a"], False)
    assert await catalog.page(Question(which=Filter(updated_since=changed.update_time))) == (["b"], False)
    with pytest.raises(NotFound):
        await catalog.page(Question("nowhere"))
    ports: Any = {"categories": catalog.taxonomy, "clock": catalog.clock, "new_id": catalog.new_id}
    await update_category("lamps", parent_id="garden", **ports)
    assert await catalog.page(Question("home")) == (["a"], False)
    assert await catalog.page(Question("garden")) == (["b", "c", "d"], False)
