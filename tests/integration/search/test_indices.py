"""The indices on the engine: filled by one replica at a time, and again where they are lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from chassis.money import Money
from search_svc.adapters.elastic_search import ElasticProductSearch
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import PARTS, PRODUCTS
from search_svc.application.ports import IndexMissing
from search_svc.application.rebuild import keep
from search_svc.domain.product import Availability, Category, Product, SkuAvailability, Variant
from tests.integration.search.support import filled


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

    async def products(self, token: str = "") -> AsyncIterator[tuple[Sequence[Product], str]]:
        for begin in range(int(token or 0), len(self._products), 3):
            await asyncio.sleep(0)
            yield self._products[begin : begin + 3], f"{begin + 3}"

    async def categories(self) -> AsyncIterator[Sequence[Category]]:
        yield [Category("c", ("Cups",), 1)]

    async def availability(self) -> AsyncIterator[Mapping[str, SkuAvailability]]:
        for sku in {sku for product in self._products for sku in product.skus}:
            yield {sku: SkuAvailability(Availability.IN_STOCK, 1)}


async def test_the_state_of_the_index_is_told(engine: Engine, indices: Indices) -> None:
    search = ElasticProductSearch(engine, indices)
    out, gone = item("out"), Product("gone", 3, deleted=True)
    stocked = replace(item("p"), availability={"sku p": SkuAvailability(Availability.LOW, 1)})
    await filled(engine, [stocked, out, gone])
    status = await search.status()
    assert (status.index, status.products, status.products_in_stock) == (f"{PRODUCTS}-000001", 2, 1)
    assert status.rebuilding
    assert await indices.change(await indices.layout(), written={1}, filled={1}, serving=1)
    assert not (await search.status()).rebuilding
    await engine.client.indices.delete(index=f"{PRODUCTS}-000001")
    status = await search.status()
    assert (status.index, status.products, status.rebuilding) == ("", 0, True)


async def test_indices_are_made_by_any_number_at_once(engine: Engine) -> None:
    await asyncio.gather(*(Indices(engine).migrate() for _ in range(8)), *(Indices(engine).prepare() for _ in range(8)))
    await Indices(engine).migrate()
    assert len((await engine.client.indices.get(index="product*")).body) == 4
    assert not await Indices(engine).built()


async def test_many_that_keep_it_at_once_and_one_after_the_other_fill_it_once(engine: Engine) -> None:
    owners = Owners(*(item(f"p{n:02}") for n in range(20)), Product("gone", 4, deleted=True))

    async def kept(holder: str) -> bool:
        async with asyncio.timeout(15):
            while True:
                # Another may be about to make the index of the rebuild's record.
                with contextlib.suppress(IndexMissing):
                    return await keep(holder=holder, generations=Indices(engine), sources=owners)

    completed = await asyncio.gather(*(kept(f"{n}") for n in range(4)))
    assert sum(completed) == 1
    assert not await keep(holder="late", generations=Indices(engine), sources=owners)
    await engine.client.indices.refresh(index=PRODUCTS)
    status = await ElasticProductSearch(engine, Indices(engine)).status()
    assert (status.products, status.products_in_stock, status.rebuilding) == (20, 20, False)


async def test_a_rebuild_leaves_out_what_the_engine_refuses(engine: Engine) -> None:
    # A version that is no 64-bit number, and ids that have more than 512 bytes.
    owners = Owners(item("p"), item("bad", version=2**63), item("q"), item("x" * 600))
    indices = Indices(engine)
    assert await keep(holder="a", generations=indices, sources=owners)
    (index,) = await indices.targets()
    found = await index.products.read(["p", "bad", "q"])
    assert found.keys() == {"p", "q"}
    assert found["p"].document.category.path == ("Cups",)
    record = await indices.rebuild()
    assert record
    # Both, and the SKU of one.
    assert record.document.left_out == 3


async def test_a_lost_part_is_filled_again_while_the_rest_still_answers(engine: Engine) -> None:
    owners, indices = Owners(*(item(f"p{n:02}") for n in range(20))), Indices(engine)
    assert await keep(holder="a", generations=indices, sources=owners)
    await engine.client.indices.delete(index=f"{PARTS}-000001")
    assert not await indices.built()
    assert (await engine.client.count(index=PRODUCTS))["count"] == 20
    assert await keep(holder="b", generations=indices, sources=owners)
    layout = await indices.layout()
    assert (layout.serving, layout.present, layout.built) == (2, {2}, True)
    assert (await engine.client.count(index=PRODUCTS))["count"] == 20
