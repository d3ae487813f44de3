"""What every store of generations does: layouts change at once and once, and who hasn't noticed can't write."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from chassis.money import Money
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import CATEGORIES, PARTS, PRODUCTS
from search_svc.adapters.memory_index import MemoryEngine, MemoryGenerations
from search_svc.application.ports import Generations, Index, IndexMissing, Write
from search_svc.application.projection import apply_availability, apply_categories, apply_products
from search_svc.domain.product import Availability, Category, Product, SkuAvailability, Variant
from search_svc.domain.rebuild import Layout, Rebuild, Step
from tests.conftest import SEARCH_ENGINES, emptied

Replica = Callable[[], Generations]


@pytest.fixture
async def engine(fresh_search: str) -> AsyncIterator[Engine]:
    engine = Engine(fresh_search)
    await engine.open()
    yield engine
    await engine.close()


@pytest.fixture(params=["memory", *SEARCH_ENGINES])
def server(request: pytest.FixtureRequest) -> str | None:
    """The URL of an engine without an index; None stands for the double."""
    return None if request.param == "memory" else emptied(request.getfixturevalue(request.param))


@pytest.fixture
async def replica(server: str | None) -> AsyncIterator[Replica]:
    """Makes one more replica's view of the same generations."""
    if server is None:
        shared = MemoryEngine()
        yield lambda: MemoryGenerations(shared)
        return
    engine = Engine(server)
    await engine.open()
    yield lambda: Indices(engine)
    await engine.close()


@pytest.fixture
async def generations(replica: Replica) -> Generations:
    """With generation 1 written and serving."""
    generations = replica()
    await generations.prepare()
    await generations.create(1)
    assert await generations.change(await generations.layout(), written={1}, filled=set(), serving=1)
    return generations


def product(product_id: str) -> Product:
    return Product(product_id, 1, name="Mug", variants=(Variant(f"sku of {product_id}", Money("GBP", 10**9)),))


async def add(index: Index, product_id: str) -> None:
    assert await index.products.write([Write(product_id, product(product_id), None)]) == set()


async def test_at_first_there_is_nothing(replica: Replica) -> None:
    generations = replica()
    assert await generations.layout() == Layout("")
    with pytest.raises(IndexMissing):
        await generations.targets()
    with pytest.raises(IndexMissing):
        await generations.rebuild()
    assert not await generations.change(await generations.layout(), written={1}, filled=set(), serving=1)


async def test_many_that_prepare_at_once_agree(replica: Replica) -> None:
    await asyncio.gather(*(replica().prepare() for _ in range(8)))
    layout = await replica().layout()
    assert layout.epoch
    await replica().prepare()
    assert await replica().layout() == layout == Layout(layout.epoch)


async def test_what_is_made_is_neither_written_nor_read_until_the_layout_says_so(replica: Replica) -> None:
    generations = replica()
    await generations.prepare()
    await asyncio.gather(*(generations.create(3) for _ in range(3)))
    layout = await generations.layout()
    assert layout == Layout(layout.epoch, present={3})
    assert (layout.following, layout.built, layout.spare) == (4, False, None)
    with pytest.raises(IndexMissing):
        await generations.targets()
    assert await generations.change(layout, written={3}, filled={3}, serving=3)
    after = await generations.layout()
    assert after == Layout(after.epoch, present={3}, written={3}, filled={3}, serving=3)
    assert after.epoch != layout.epoch
    assert after.built


async def test_of_many_that_change_what_they_saw_one_does(generations: Generations, replica: Replica) -> None:
    await generations.create(2)
    seen = await generations.layout()
    changed = await asyncio.gather(
        *(replica().change(seen, written={1, 2}, filled={1}, serving=1 + n % 2) for n in range(8))
    )
    assert changed.count(True) == 1
    assert (await generations.layout()).serving == 1 + changed.index(True) % 2


async def test_who_has_not_noticed_a_change_can_neither_read_nor_write(
    generations: Generations, replica: Replica
) -> None:
    asleep = replica()
    (known,) = await asleep.targets()
    await add(known, "before")
    await generations.create(2)
    assert await generations.change(await generations.layout(), written={1, 2}, filled={1}, serving=1)
    with pytest.raises(IndexMissing):
        await known.products.write([Write("late", product("late"), None)])
    with pytest.raises(IndexMissing):
        await known.products.read(["before"])
    with pytest.raises(IndexMissing):
        await known.behind([Category("c", ("x",), 2)], 10)
    # Until it looks again.
    assert await asleep.targets() == [known]
    asleep.forget()
    new, serving = await asleep.targets()
    assert (await serving.products.read(["before", "late"])).keys() == {"before"}
    assert not await new.products.read(["before", "late"])
    # Also after a change that brings the former state again.
    seen = await generations.layout()
    assert await generations.change(seen, written={1}, filled={1}, serving=1)
    with pytest.raises(IndexMissing):
        await known.products.write([Write("late", product("late"), None)])
    assert not await replica().change(seen, written={1, 2}, filled={1}, serving=2)


async def test_a_generation_that_is_deleted_is_in_no_layout(generations: Generations) -> None:
    await generations.create(2)
    assert await generations.change(await generations.layout(), written={1, 2}, filled={1, 2}, serving=2)
    assert (await generations.layout()).spare == 1
    await generations.delete(2)
    await generations.delete(2)
    layout = await generations.layout()
    assert layout == Layout(layout.epoch, present={1}, written={1}, filled={1})
    # Its indices alone don't make it what it was.
    await generations.create(2)
    assert await generations.layout() == replace(layout, present={1, 2})


async def test_entries_of_owners_are_counted(generations: Generations) -> None:
    (index,) = await generations.targets()
    await apply_categories([Category("c", ("x",), 1)], index=index)
    await apply_products([product("p"), product("q"), Product("gone", 2, deleted=True)], index=index)
    await apply_availability([("other", SkuAvailability(Availability.LOW, 1))], index=index)
    await generations.refresh(1)
    assert await generations.size(1) == 5
    with pytest.raises(IndexMissing):
        await generations.size(2)
    with pytest.raises(IndexMissing):
        await generations.refresh(2)


async def test_the_record_of_a_rebuild_is_written_by_whom_it_was_read(
    generations: Generations, replica: Replica
) -> None:
    assert await generations.rebuild() is None
    rebuild = Rebuild("r", 2, 5.25, True, Step.CHECK, "token", 1, 2, 3, 4, 5, "digest", "trouble", 6.5, "holder", 7.5)
    first = await generations.save(rebuild, None)
    assert first
    assert await replica().save(rebuild, None) is None
    stored = await replica().rebuild()
    assert stored
    assert (stored.document, stored.revision) == (rebuild, first)
    second = await generations.save(replace(rebuild, step=Step.DONE), first)
    assert second
    assert await replica().save(rebuild, first) is None
    stored = await replica().rebuild()
    assert stored
    assert stored.document.step is Step.DONE


async def test_a_layout_without_its_record_is_as_it_was(engine: Engine) -> None:
    indices = Indices(engine)
    await indices.migrate()
    assert await indices.change(await indices.layout(), written={1}, filled={1}, serving=1)
    (known,) = await indices.targets()
    before = await indices.layout()
    await engine.client.indices.delete(index="product-rebuild-*")
    with pytest.raises(IndexMissing):
        await Indices(engine).targets()
    await asyncio.gather(*(Indices(engine).prepare() for _ in range(4)))
    assert await Indices(engine).layout() == before
    await add(known, "p")


@pytest.mark.parametrize("kind", [PRODUCTS, PARTS, CATEGORIES])
async def test_a_generation_of_which_a_part_is_lost_is_neither_written_nor_filled(engine: Engine, kind: str) -> None:
    indices = Indices(engine)
    await indices.migrate()
    assert await indices.change(await indices.layout(), written={1}, filled={1}, serving=1)
    await engine.client.indices.delete(index=f"{kind}-000001")
    layout = await indices.layout()
    lost = kind == PRODUCTS
    assert layout == Layout(layout.epoch, present={1}, serving=None if lost else 1)
    assert not layout.built


async def test_aliases_of_others_stay(engine: Engine) -> None:
    indices = Indices(engine)
    await indices.migrate()
    await engine.client.indices.put_alias(index=f"{PRODUCTS}-000001", name="somebody-elses")
    assert await indices.change(await indices.layout(), written={1}, filled={1}, serving=1)
    assert await engine.client.indices.exists_alias(name="somebody-elses")


async def test_indices_of_another_version_are_worlds_apart(engine: Engine) -> None:
    """As two releases are while one replaces the other."""
    old, new = Indices(engine, version=2), Indices(engine)
    for indices in (old, new):
        await asyncio.gather(*(indices.migrate() for _ in range(4)))
        assert await indices.change(await indices.layout(), written={1}, filled={1}, serving=1)
    (index,) = await old.targets()
    await add(index, "p")
    (index,) = await new.targets()
    assert not await index.products.read(["p"])
    await add(index, "q")
    before = await old.layout()
    await new.create(2)
    assert await new.change(await new.layout(), written={1, 2}, filled={1, 2}, serving=2)
    await new.delete(1)
    assert await old.layout() == before
    assert (await old.name(), await new.name()) == ("products-v2-000001", f"{PRODUCTS}-000002")
