"""What every index does with the documents a projection writes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings

from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.money import Money
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import PRODUCTS
from search_svc.adapters.memory_index import MemoryIndex
from search_svc.application.ports import D, DocumentRefused, Documents, Index, IndexMissing, Write
from search_svc.domain.product import Availability, Category, Product, SkuAvailability, SkuRecord, Variant
from tests.conftest import SEARCH_ENGINES, emptied, free_port
from tests.unit.search import strategies as some

BAD = "bad"
QUICK = settings(
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    print_blob=True,
)


@pytest.fixture
async def engine(fresh_search: str) -> AsyncIterator[Engine]:
    engine = Engine(fresh_search)
    await engine.open()
    yield engine
    await engine.close()


@pytest.fixture
async def migrated(engine: Engine) -> Index:
    indices = Indices(engine)
    await indices.migrate()
    (index,) = await indices.targets()
    return index


@pytest.fixture(params=["memory", *SEARCH_ENGINES])
def server(request: pytest.FixtureRequest) -> str | None:
    """The URL of an engine without an index; None stands for the double."""
    return None if request.param == "memory" else emptied(request.getfixturevalue(request.param))


@pytest.fixture
async def index(server: str | None) -> AsyncIterator[Index]:
    if server is None:
        yield MemoryIndex(refused=frozenset({BAD}))
        return
    engine = Engine(server)
    await engine.open()
    indices = Indices(engine)
    await indices.migrate()
    (index,) = await indices.targets()
    yield index
    await engine.close()


def product(product_id: str, name: str = "Mug", version: int = 1) -> Product:
    return Product(product_id, version, name=name, variants=(Variant(f"sku of {product_id}", Money("GBP", 10**9)),))


def refused(product_id: str) -> Product:
    """What no engine takes: a version that is no 64-bit number."""
    return product(product_id, version=2**63)


async def add(documents: Documents[Product], *products: Product) -> None:
    assert await documents.write([Write(p.product_id, p, None) for p in products]) == set()


async def change(documents: Documents[D], key: str, document: D) -> set[str]:
    """Replace what is there now."""
    return await documents.write([Write(key, document, (await documents.read([key]))[key].revision)])


async def known(documents: Documents[Product], *keys: str) -> dict[str, str]:
    return {key: stored.document.name for key, stored in (await documents.read(keys)).items()}


async def test_what_is_written_is_read_at_once_and_what_is_not_there_is_left_out(index: Index) -> None:
    await add(index.products, product("p"), product("q", "Cup"))
    assert await known(index.products, "q", "nowhere", "p") == {"p": "Mug", "q": "Cup"}
    assert await index.products.read([]) == {}
    assert await index.products.write([]) == set()
    assert await change(index.products, "p", product("p", "Jug")) == set()
    assert await known(index.products, "p") == {"p": "Jug"}


async def test_products_and_skus_of_one_key_do_not_meet(index: Index) -> None:
    await add(index.products, product("x"))
    record = SkuRecord("x", SkuAvailability(Availability.LOW, 3), frozenset({"p"}))
    assert await index.skus.write([Write("x", record, None)]) == set()
    assert (await index.skus.read(["x"]))["x"].document == record
    assert (await index.products.read(["x"]))["x"].document == product("x")


async def test_what_is_new_is_written_only_where_nothing_is(index: Index) -> None:
    await add(index.products, product("p"))
    writes = [Write(key, product(key, "Cup"), None) for key in ("q", "p", "r")]
    assert await index.products.write(writes) == {"p"}
    assert await known(index.products, "p", "q", "r") == {"p": "Mug", "q": "Cup", "r": "Cup"}


async def test_a_change_goes_to_the_revision_that_was_read_or_nowhere(index: Index) -> None:
    await add(index.products, product("p"))
    before = (await index.products.read(["p"]))["p"].revision
    assert (await index.products.read(["p"]))["p"].revision == before
    assert await index.products.write([Write("p", product("p", "Cup"), before)]) == set()
    for rival in ("Jug", "Cup"):
        assert await index.products.write([Write("p", product("p", rival), before)]) == {"p"}
    assert await known(index.products, "p") == {"p": "Cup"}
    assert await index.products.write([Write("gone", product("gone"), before)]) == {"gone"}


async def test_of_many_rivals_one_wins_and_the_others_are_told(index: Index) -> None:
    rivals = [index.products.write([Write("p", product("p", f"{n}"), None)]) for n in range(20)]
    outcomes = await asyncio.gather(*rivals)
    assert (outcomes.count(set()), outcomes.count({"p"})) == (1, 19)
    before = (await index.products.read(["p"]))["p"].revision
    rivals = [index.products.write([Write("p", product("p", f"again {n}"), before)]) for n in range(20)]
    outcomes = await asyncio.gather(*rivals)
    assert (outcomes.count(set()), outcomes.count({"p"})) == (1, 19)
    assert await known(index.products, "p") == {"p": f"again {outcomes.index(set())}"}


async def test_many_and_large_documents_in_one_write(index: Index) -> None:
    many = [replace(product(f"p{n:04}"), description="long " * 1_000) for n in range(1_200)]
    await add(index.products, *many)
    found = await index.products.read([p.product_id for p in many])
    assert [found[p.product_id].document for p in many] == many


async def test_a_refused_document_is_told_and_the_others_are_written(index: Index) -> None:
    await add(index.products, product("old"))
    writes = [Write(p.product_id, p, None) for p in (product("p"), refused(BAD), product("old", "Cup"), product("q"))]
    with pytest.raises(DocumentRefused, match=BAD):
        await index.products.write(writes)
    assert await known(index.products, BAD, "old", "p", "q") == {"old": "Mug", "p": "Mug", "q": "Mug"}


@settings(QUICK, max_examples=60)
@given(some.products)
@example(replace(product("p"), availability={"a.b.": SkuAvailability(Availability.LOW, 1)}))
async def test_a_product_is_read_as_it_was_written(index: Index, product: Product) -> None:
    # Each in a place of its own; the key is no part of the document that must come back.
    key = uuid7()
    await index.products.write([Write(key, product, None)])
    again = (await index.products.read([key]))[key].document
    assert again == product
    assert {k: type(v) for k, v in again.attributes.items()} == {k: type(v) for k, v in product.attributes.items()}


@settings(QUICK, max_examples=60)
@given(some.skus)
async def test_a_sku_is_read_as_it_was_written_whatever_it_is_called(index: Index, record: SkuRecord) -> None:
    if known := await index.skus.read([record.sku]):
        assert await index.skus.write([Write(record.sku, record, known[record.sku].revision)]) == set()
    else:
        assert await index.skus.write([Write(record.sku, record, None)]) == set()
    assert (await index.skus.read([record.sku]))[record.sku].document == record


async def test_products_whose_path_is_older_are_found_as_soon_as_they_are_written(index: Index) -> None:
    def lying(product_id: str, category_id: str, version: int) -> Product:
        return replace(product(product_id), category=Category(category_id, ("x",), version))

    await add(index.products, lying("p", "c", 1), lying("q", "c", 2), lying("r", "d", 1), lying("s", "d", 5))
    await add(index.products, product("none"), Product("gone", 2, deleted=True))
    assert sorted(await index.behind([Category("c", (), 2), Category("d", (), 6)], 10)) == ["p", "r", "s"]
    assert len(await index.behind([Category("c", (), 9)], 1)) == 1
    assert await index.behind([Category("c", (), 1), Category("e", (), 9)], 10) == []


@settings(QUICK, max_examples=30)
@given(some.categories)
async def test_a_category_is_read_as_it_was_written(index: Index, category: Category) -> None:
    known = await index.categories.read([category.category_id])
    revision = known[category.category_id].revision if known else None
    assert await index.categories.write([Write(category.category_id, category, revision)]) == set()
    assert (await index.categories.read([category.category_id]))[category.category_id].document == category


async def test_nothing_is_read_from_or_written_to_an_index_that_is_not_there(engine: Engine) -> None:
    index = Indices(engine).index(1, "epoch")
    with pytest.raises(IndexMissing):
        await index.products.read(["p"])
    with pytest.raises(IndexMissing):
        await index.products.write([Write("p", product("p"), None)])
    assert not (await engine.client.indices.get(index="product*", allow_no_indices=True)).body


async def test_an_index_that_takes_no_writes_for_now_refuses_no_document(engine: Engine, migrated: Index) -> None:
    await engine.client.indices.put_settings(index=PRODUCTS, settings={"blocks.write": True})
    with pytest.raises(Unavailable):
        await migrated.products.write([Write("p", product("p"), None)])
    await engine.client.indices.put_settings(index=PRODUCTS, settings={"blocks.write": None})
    await add(migrated.products, product("p"))


async def test_an_engine_that_cannot_be_reached_is_unavailable() -> None:
    engine = Engine(f"http://127.0.0.1:{free_port()}")
    index = Indices(engine).index(1, "epoch")
    with pytest.raises(Unavailable):
        await index.products.read(["p"])
    await engine.open()
    with pytest.raises(Unavailable):
        await index.products.read(["p"])
    with pytest.raises(Unavailable):
        await index.products.write([Write("p", product("p"), None)])
    await engine.close()
