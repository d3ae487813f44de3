"""Events in any order, any number of times, through any number of workers at once, give the same index."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import Aborted
from chassis.money import Money
from search_svc.adapters.memory_index import MemoryIndex
from search_svc.application.ports import DocumentRefused
from search_svc.application.projection import apply_availability, apply_categories, apply_products
from search_svc.domain.product import Availability, Category, Product, SkuAvailability, SkuRecord, Variant

PRICE = Money.parse("GBP", "1.00")
SKUS = ("A", "B", "C")
Event = Product | Category | tuple[str, SkuAvailability]
CATEGORIES = ("", "c", "d")


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What two products, three SKUs and two categories went through: a SKU may move, a product change its category, be
    deleted and come again."""
    events: list[Event] = []
    for product_id in ("P", "Q"):
        for version in range(1, draw(st.integers(1, 4)) + 1):
            skus = draw(st.sets(st.sampled_from(SKUS)))
            variants = tuple(Variant(sku, PRICE) for sku in sorted(skus))
            events.append(
                Product(
                    product_id,
                    version,
                    name=f"{product_id}{version}",
                    variants=variants,
                    category=Category(draw(st.sampled_from(CATEGORIES))),
                )
                if skus
                else Product(product_id, version, deleted=True)
            )
    for category_id in CATEGORIES[1:]:
        for version in range(1, draw(st.integers(0, 3)) + 1):
            events.append(Category(category_id, (f"{category_id}{version}",), version))
    for sku in SKUS:
        for version in range(1, draw(st.integers(0, 3)) + 1):
            events.append((sku, SkuAvailability(draw(st.sampled_from(Availability)), version)))
    return events


def expected(events: Sequence[Event]) -> dict[str, Product]:
    newest: dict[str, Product] = {}
    for event in sorted((e for e in events if isinstance(e, Product)), key=lambda p: p.version):
        newest[event.product_id] = event
    last = dict(sorted((e for e in events if isinstance(e, tuple)), key=lambda e: e[1].version))
    paths = {c.category_id: c for c in sorted((e for e in events if isinstance(e, Category)), key=lambda c: c.version)}
    return {
        key: product.with_availability(last).with_category(paths.get(product.category.category_id))
        for key, product in newest.items()
    }


async def apply(batch: Sequence[Event], index: MemoryIndex) -> None:
    """As a subscription does: a conflict too many and it tries again."""
    while True:
        try:
            await apply_products([e for e in batch if isinstance(e, Product)], index=index)
            await apply_availability([e for e in batch if isinstance(e, tuple)], index=index)
            await apply_categories([e for e in batch if isinstance(e, Category)], index=index)
            return
        except Aborted:
            continue


@given(histories(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_any_order_any_batches_any_repetition_any_interleaving_ends_the_same(
    events: list[Event], chance: random.Random
) -> None:
    deliveries = events + chance.choices(events, k=chance.randint(0, len(events)))
    chance.shuffle(deliveries)
    index = MemoryIndex(lambda: chance.randint(0, 3))
    shares: list[list[list[Event]]] = [[], [], []]
    while deliveries:
        size = chance.randint(1, 4)
        chance.choice(shares).append(deliveries[:size])
        del deliveries[:size]

    async def work(batches: list[list[Event]]) -> None:
        for batch in batches:
            await apply(batch, index)

    async def run() -> None:
        await asyncio.gather(*(work(share) for share in shares))
        assert index.shown() == expected(events)
        known = index.known()
        users = {sku: {p.product_id for p in events if isinstance(p, Product) and sku in p.skus} for sku in SKUS}
        assert {sku: record.product_ids for sku, record in known.items()} == {
            sku: users[sku] for sku in SKUS if sku in known
        }
        # All of it again, as after a stream was filled anew: nothing is written.
        before = index.products.writes, index.skus.writes
        await apply(events, index)
        assert (index.products.writes, index.skus.writes) == before

    asyncio.run(run())


async def test_a_product_that_is_there_already_still_gets_the_availability_it_missed() -> None:
    """As after a crash between the two: the redelivery completes it."""
    index = MemoryIndex()
    product = Product("P", 1, variants=(Variant("A", PRICE),))
    await apply_products([product], index=index)
    record = index.skus.documents["A"]
    low = SkuAvailability(Availability.LOW, 1)
    index.skus.documents["A"] = type(record)(SkuRecord("A", low, frozenset("P")), record.revision)
    await apply_products([product], index=index)
    assert index.shown()["P"].availability == {"A": low}


async def test_documents_that_never_stop_changing_abort() -> None:
    index = MemoryIndex()
    read = index.products.read

    async def always_behind(keys: Sequence[str]):  # type: ignore[no-untyped-def]
        found = await read(keys)
        for key in keys:
            await index.products.write([])
            index.products.documents[key] = type(next(iter(index.skus.documents.values())))(
                Product(key, 1, name=str(random.random())),  # type: ignore[arg-type]
                (random.randint(1, 10**9), 1),
            )  # type: ignore[assignment]
        return found

    index.products.read = always_behind  # type: ignore[method-assign]
    with pytest.raises(Aborted):
        await apply_products([Product("P", 2, variants=(Variant("A", PRICE),))], index=index)


async def test_a_document_that_the_engine_refuses_says_so_and_the_others_are_there() -> None:
    index = MemoryIndex(refused=frozenset({"bad"}))
    with pytest.raises(DocumentRefused):
        await apply_products([Product(key, 1, variants=(Variant(key, PRICE),)) for key in ("bad", "good")], index=index)
    assert index.shown().keys() == {"good"}
