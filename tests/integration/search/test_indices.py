"""The indices on the engine: made once, replaced by those of another version, filled by one replica at a time."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import pytest

from chassis.errors import Unavailable
from chassis.money import Money
from search_svc.adapters.elastic_index import ElasticIndex
from search_svc.adapters.elastic_search import ElasticProductSearch
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import PRODUCTS, SCHEMA_VERSION
from search_svc.application.ports import IndexMissing
from search_svc.application.rebuild import rebuild
from search_svc.domain.product import Availability, Category, Product, SkuAvailability, Variant
from tests.integration.search.support import filled

VERSION = SCHEMA_VERSION


def item(product_id: str, version: int = 1) -> Product:
    return Product(
        product_id,
        version,
        name="Mug",
        category=Category("c"),
        variants=(Variant(f"sku {product_id}", Money("GBP", 10**9)),),
    )


class Owners:
    """Catalog and inventory, of `products` in one category and all their SKUs in stock."""

    def __init__(self, *products: Product):
        self._products = products

    async def products(self) -> AsyncIterator[Sequence[Product]]:
        for begin in range(0, len(self._products), 3):
            await asyncio.sleep(0)
            yield self._products[begin : begin + 3]

    async def categories(self) -> AsyncIterator[Sequence[Category]]:
        yield [Category("c", ("Cups",), 1)]

    async def availability(self) -> AsyncIterator[Mapping[str, SkuAvailability]]:
        for sku in {sku for product in self._products for sku in product.skus}:
            yield {sku: SkuAvailability(Availability.IN_STOCK, 1)}


async def test_the_lease_is_one_holder_s_until_it_runs_out(indices: Indices) -> None:
    assert not await indices.built()
    with pytest.raises(IndexMissing):
        await indices.ready()
    assert await indices.take("a", 60)
    assert not await indices.take("b", 60)
    assert not await indices.complete("b")
    assert await indices.take("a", -1)
    assert await indices.take("b", 60)
    assert not await indices.take("a", 60)
    assert not await indices.complete("a")
    assert await indices.complete("b")
    assert await indices.built()
    await indices.ready()
    assert not await indices.take("a", 60)
    assert not await indices.take("b", 60)


async def test_of_many_that_want_the_lease_at_once_one_gets_it(indices: Indices) -> None:
    for _ in range(3):
        taken = await asyncio.gather(*(indices.take(f"{n}", -1) for n in range(10)))
        assert sum(taken) >= 1
    taken = await asyncio.gather(*(indices.take(f"{n}", 60) for n in range(10, 20)))
    assert sum(taken) == 1


async def test_a_lease_over_a_lost_index_counts_no_more(engine: Engine, indices: Indices) -> None:
    assert await indices.take("a", 60)
    assert await indices.complete("a")
    for name in (await engine.client.indices.get(index="product-parts")).body:
        await engine.client.indices.delete(index=name)
    with pytest.raises(IndexMissing):
        await indices.built()
    with pytest.raises(IndexMissing):
        await indices.take("b", 60)
    await indices.prepare()
    assert not await indices.built()
    assert not await indices.complete("a")
    assert await indices.take("b", 60)


async def test_the_state_of_the_index_is_told(engine: Engine, indices: Indices) -> None:
    search = ElasticProductSearch(engine, indices)
    out, gone = item("out"), Product("gone", 3, deleted=True)
    stocked = replace(item("p"), availability={"sku p": SkuAvailability(Availability.LOW, 1)})
    await filled(engine, [stocked, out, gone])
    status = await search.status()
    assert (status.index, status.products, status.products_in_stock) == (f"products-{VERSION}-000001", 2, 1)
    assert status.rebuilding
    await indices.take("a", 60)
    await indices.complete("a")
    assert not (await search.status()).rebuilding
    await engine.client.indices.delete(index=f"products-{VERSION}-000001")
    status = await search.status()
    assert (status.index, status.products, status.rebuilding) == ("", 0, True)


async def test_indices_are_made_by_any_number_at_once(engine: Engine) -> None:
    await asyncio.gather(*(Indices(engine).migrate() for _ in range(8)), *(Indices(engine).prepare() for _ in range(8)))
    await Indices(engine).migrate()
    assert len((await engine.client.indices.get(index="product*")).body) == 4
    assert not await Indices(engine).built()


async def test_indices_of_another_version_are_replaced_by_any_number_at_once(
    engine: Engine, indices: Indices, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(engine, [item("p")])
    monkeypatch.setattr("search_svc.adapters.indices.SCHEMA_VERSION", VERSION + 1)
    with pytest.raises(Unavailable, match="another version"):
        await indices.check_schema()
    with pytest.raises(Unavailable, match="another version"):
        await indices.built()
    await asyncio.gather(*(Indices(engine).migrate() for _ in range(8)))
    await indices.check_schema()
    found = (await engine.client.indices.get(index="product*")).body
    aliases = ("product-categories", "product-parts", "product-rebuild", "products")
    assert sorted(found) == [f"{alias}-{VERSION + 1}-000001" for alias in aliases]
    assert (await engine.client.count(index=PRODUCTS))["count"] == 0
    assert not await indices.built()


async def test_an_index_that_lost_its_alias_gets_it_again(engine: Engine, indices: Indices) -> None:
    await engine.client.indices.delete_alias(index=f"products-{VERSION}-000001", name=PRODUCTS)
    with pytest.raises(IndexMissing):
        await indices.built()
    await indices.prepare()
    assert not await indices.built()


async def test_rebuilds_at_once_and_one_after_the_other_fill_it_once(engine: Engine, indices: Indices) -> None:
    owners = Owners(*(item(f"p{n:02}") for n in range(20)), Product("gone", 4, deleted=True))
    index = ElasticIndex(engine)
    completed = await asyncio.gather(
        *(rebuild(holder=f"{n}", lease=indices, index=index, sources=owners) for n in range(4))
    )
    assert sum(completed) == 1
    assert not await rebuild(holder="late", lease=indices, index=index, sources=owners)
    await engine.client.indices.refresh(index=PRODUCTS)
    status = await ElasticProductSearch(engine, indices).status()
    assert (status.products, status.products_in_stock, status.rebuilding) == (20, 20, False)


async def test_a_rebuild_leaves_out_what_the_engine_refuses(engine: Engine) -> None:
    # A version that is no 64-bit number, and ids that have more than 512 bytes.
    owners = Owners(item("p"), item("bad", version=2**63), item("q"), item("x" * 600))
    assert await rebuild(holder="a", lease=Indices(engine), index=ElasticIndex(engine), sources=owners)
    found = await ElasticIndex(engine).products.read(["p", "bad", "q"])
    assert found.keys() == {"p", "q"}
    assert found["p"].document.category.path == ("Cups",)
