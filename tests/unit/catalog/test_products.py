"""The use cases over products in memory."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_svc.adapters.memory_products import MemoryProducts
from catalog_svc.application.ports import Saved
from catalog_svc.application.products import (
    Change,
    batch_get_products,
    batch_get_variants,
    create_product,
    delete_product,
    get_product,
    list_products,
    update_product,
)
from catalog_svc.domain.product import FIELDS, Details, Product, ProductEvent, Variant
from chassis.clock import ManualClock
from chassis.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Unavailable
from chassis.ids import sequential_ids
from chassis.money import Money
from tests.unit.catalog import strategies as some


def details(*skus: str, name: str = "Mug") -> Details:
    return Details(name=name, variants=tuple(Variant(sku, Money("GBP", 100)) for sku in skus))


class Catalog:
    """The use cases with their ports filled in."""

    def __init__(self) -> None:
        self.store = MemoryProducts()
        self._ports = {"products": self.store, "clock": ManualClock(), "new_id": sequential_ids()}

    async def create(self, product_id: str, given: Details) -> Product:
        return await create_product(product_id, given, **self._ports)  # type: ignore[arg-type]

    async def update(self, change: Change) -> Product:
        return await update_product(change, **self._ports)  # type: ignore[arg-type]


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
        await catalog.update(Change("r", details("a"), ["variants"], other.etag))


async def test_a_deleted_product_is_gone_and_can_be_created_again() -> None:
    catalog = Catalog()
    product = await catalog.create("p", details("a"))
    with pytest.raises(Aborted):
        await delete_product("p", "stale", products=catalog.store)
    await delete_product("p", product.etag, products=catalog.store)
    for gone in (get_product("p", products=catalog.store), delete_product("p", products=catalog.store)):
        with pytest.raises(NotFound):
            await gone
    assert await batch_get_products(["p"], products=catalog.store) == []
    assert (await catalog.create("p", details("a"))).version == 3


async def test_an_etag_decides_between_two_updates() -> None:
    catalog = Catalog()
    before = await catalog.create("p", details("a"))
    changes = [Change("p", details("a", name=f"Mug {n}"), ["name"], before.etag) for n in range(5)]
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
    after = await catalog.update(Change("p", given_, fields))
    for field in FIELDS:
        source = given_ if field in fields else before
        assert getattr(after.details, field) == getattr(source, field)
    changed = any(getattr(before, field) != getattr(given_, field) for field in fields)
    assert (after.version, after.etag != created.etag) == ((2, True) if changed else (1, False))


async def test_an_update_that_makes_the_product_too_large_is_refused() -> None:
    catalog = Catalog()
    half = {f"fact {n}": "x" * 4_000 for n in range(60)}
    await catalog.create("p", replace(details("a"), attributes=half))
    with pytest.raises(InvalidArgument) as refused:
        await catalog.update(Change("p", replace(details("a"), description="ä" * 20_000), ["description"]))
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
    catalog.store = catalog._ports["products"] = contested = Contested()
    await catalog.create("p", details("a"))
    contested.losses = 3
    assert (await catalog.update(Change("p", details("a", name="Cup"), ["name"]))).version == 2
    contested.losses = 99
    with pytest.raises(Aborted):
        await catalog.update(Change("p", details("a", name="Jug"), ["name"]))
    contested.outcome = Saved.BACKED_UP
    with pytest.raises(Unavailable) as refused:
        await catalog.update(Change("p", details("a", name="Jug"), ["name"]))
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
        page, more = await list_products(seen[-1] if seen else "", size, "", products=catalog.store)
        seen += [product.product_id for product in page]
        assert len(page) == size or not more
    assert seen == sorted(product_ids)
