"""A rebuild under way while owners change, replicas write, and whoever drives it dies anywhere, misses nothing."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import Aborted, FailedPrecondition, InvalidArgument, Unavailable, Violation
from chassis.money import Money
from search_svc.adapters.memory_index import MemoryEngine, MemoryGenerations, MemoryIndex
from search_svc.application.ports import Generations, Index, IndexMissing
from search_svc.application.projection import (
    apply_availability,
    apply_categories,
    apply_everywhere,
    apply_popularity,
    apply_products,
)
from search_svc.application.rebuild import drop_old, keep, roll_back, start_rebuild
from search_svc.domain.popularity import Popularity, PopularityRecord
from search_svc.domain.product import Availability, Category, Product, SkuAvailability, Variant
from search_svc.domain.rebuild import Step

PRICE = Money.parse("GBP", "1.00")
SKUS = [f"s{n}" for n in range(6)]
CATEGORIES = ["c", "d", "e"]
PRODUCTS = [f"p{n}" for n in range(9)]
SEEDS = st.integers(0, 2**32)

Event = Product | Category | tuple[str, SkuAvailability] | PopularityRecord


class Owners:
    """Catalog and inventory. What they change is an event; a stream is read while they change more."""

    def __init__(self, chance: random.Random):
        self.products_: dict[str, Product] = {}
        self.categories_: dict[str, Category] = {}
        self.availability_: dict[str, SkuAvailability] = {}
        self.popularity_: dict[str, Popularity] = {}
        self.events: list[Event] = []
        self.refuses_tokens = False
        self.breaks = 0
        self._chance = chance

    def change(self) -> None:
        chance = self._chance
        match chance.randrange(6):
            case 5:
                key = chance.choice(PRODUCTS)
                version = self.popularity_[key].version + 1 if key in self.popularity_ else 1
                self.popularity_[key] = Popularity(chance.random(), version)
                self.events.append(PopularityRecord(key, self.popularity_[key]))
            case 0:
                key = chance.choice(CATEGORIES)
                version = self.categories_[key].version + 1 if key in self.categories_ else 1
                self.categories_[key] = Category(key, (f"{key}{version}",), version)
                self.events.append(self.categories_[key])
            case 1 | 2:
                sku = chance.choice(SKUS)
                version = self.availability_[sku].version + 1 if sku in self.availability_ else 1
                self.availability_[sku] = SkuAvailability(chance.choice(list(Availability)), version)
                self.events.append((sku, self.availability_[sku]))
            case _:
                key = chance.choice(PRODUCTS)
                version = self.products_[key].version + 1 if key in self.products_ else 1
                skus = chance.sample(SKUS, chance.randint(0, 2))
                self.products_[key] = (
                    Product(
                        key,
                        version,
                        name=f"{key} {version}",
                        category=Category(chance.choice(["", *CATEGORIES])),
                        variants=tuple(Variant(sku, PRICE) for sku in skus),
                    )
                    if skus
                    else Product(key, version, deleted=True)
                )
                self.events.append(self.products_[key])

    async def products(self, token: str = "") -> AsyncIterator[tuple[Sequence[Product], str]]:
        if token and self.refuses_tokens:
            raise InvalidArgument([Violation("resume_token", "is not one")])
        while chunk := sorted(key for key in self.products_ if key > token)[:2]:
            await self._between()
            yield [self.products_[key] for key in chunk], (token := chunk[-1])

    async def categories(self) -> AsyncIterator[Sequence[Category]]:
        for key in sorted(self.categories_):
            await self._between()
            yield [self.categories_[key]]

    async def availability(self) -> AsyncIterator[Mapping[str, SkuAvailability]]:
        for sku in sorted(self.availability_):
            await self._between()
            yield {sku: self.availability_[sku]}

    async def _between(self) -> None:
        await asyncio.sleep(0)
        if self.breaks:
            self.breaks -= 1
            raise Unavailable("the stream broke off")

    def expected(self) -> dict[str, Product]:
        return {
            key: product.with_availability(self.availability_)
            .with_category(self.categories_.get(product.category.category_id))
            .with_popularity(self.popularity_.get(key))
            for key, product in self.products_.items()
        }


async def apply(event: Event, index: Index) -> None:
    match event:
        case Product():
            await apply_products([event], index=index)
        case Category():
            await apply_categories([event], index=index)
        case PopularityRecord():
            await apply_popularity({event.product_id: event.popularity}, index=index)
        case _:
            await apply_availability([event], index=index)


def assert_equal(index: MemoryIndex, owners: Owners) -> None:
    assert index.shown() == owners.expected()
    assert {k: r.availability for k, r in index.known().items() if r.availability} == owners.availability_
    assert {k: s.document for k, s in index.categories.documents.items()} == owners.categories_


async def back(generations: Generations) -> None:
    """From whatever serves now."""
    await roll_back(f"{(await generations.layout()).serving}", generations)


class World:
    def __init__(self, chance: random.Random, refused: frozenset[str] = frozenset()):
        self.chance = chance
        self.engine = MemoryEngine(lambda: chance.randint(0, 3), refused)
        self.owners = Owners(chance)
        self.done = False

    def replica(self) -> MemoryGenerations:
        return MemoryGenerations(self.engine)

    async def consume(self) -> None:
        """A replica that takes events, in no order, some of them twice, until there are none and all is done."""
        targets, events = self.replica(), self.owners.events
        while events or not self.done:
            await asyncio.sleep(0)
            if not events:
                continue
            event = events.pop(self.chance.randrange(len(events)))
            if self.chance.random() < 0.1:
                events.append(event)
            for _ in range(10_000):
                try:
                    await apply_everywhere(lambda index, event=event: apply(event, index), targets=targets)
                    break
                except (Unavailable, Aborted):
                    await asyncio.sleep(0)
            else:
                raise AssertionError(f"{event} can't be applied")

    async def consume_all(self) -> None:
        self.done = True
        await self.consume()
        self.done = False

    async def change(self, changes: int) -> None:
        for _ in range(changes):
            self.owners.change()
            for _ in range(self.chance.randint(0, 20)):
                await asyncio.sleep(0)

    async def change_until(self, ended: asyncio.Event, pause: int) -> None:
        while not ended.is_set():
            self.owners.change()
            for _ in range(self.chance.randint(1, pause)):
                await asyncio.sleep(0)
        await self.change(5)

    async def settle(self, holder: str = "last") -> None:
        """Let one replica that stays alive do what there is to do."""
        generations = self.replica()
        for _ in range(200):
            try:
                await keep(holder=holder, generations=generations, sources=self.owners, lease=0)
                last, layout = await generations.rebuild(), await generations.layout()
                if layout.built and not (last and last.document.running):
                    return
            except (Unavailable, Aborted):
                await asyncio.sleep(0)
        raise AssertionError("it is never done")

    async def drive_and_die(self, deaths: int) -> None:
        """Replicas that keep the index, each of which dies after a while."""
        for n in range(deaths):
            alive = asyncio.create_task(keep(holder=f"{n}", generations=self.replica(), sources=self.owners, lease=0))
            for _ in range(self.chance.randint(1, 250)):
                await asyncio.sleep(0)
            alive.cancel()
            await asyncio.wait({alive})
            if not alive.cancelled() and (error := alive.exception()):
                assert isinstance(error, Unavailable | Aborted), error

    def index(self, generation: int | None) -> MemoryIndex:
        assert generation is not None
        return self.engine.indices[generation]


async def searched(world: World) -> None:
    """As shoppers do all the time: there is always an index, and what was seen once is never seen older."""
    seen: dict[str, int] = {}
    while not world.done:
        for key, product in world.index(world.engine.layout.serving).shown().items():
            assert product.version >= seen.get(key, 0)
            seen[key] = product.version
        await asyncio.sleep(0)


@given(SEEDS, st.integers(20, 200), st.integers(0, 6))
@settings(max_examples=150)
def test_a_rebuild_whose_drivers_die_anywhere_loses_no_change_and_answers_all_the_time(
    seed: int, pause: int, deaths: int
) -> None:
    async def run() -> None:
        world = World(chance := random.Random(seed))
        for _ in range(10):
            world.owners.change()
        await world.settle()
        await world.consume_all()
        assert_equal(world.index(world.engine.layout.serving), world.owners)

        shoppers, replicas = asyncio.create_task(searched(world)), [world.consume() for _ in range(2)]
        swapped = asyncio.Event()
        tasks = [asyncio.create_task(task) for task in (*replicas, world.change_until(swapped, pause))]
        started = await asyncio.gather(*(start_rebuild(world.replica()) for _ in range(2)))
        assert started[0].rebuild_id == started[1].rebuild_id
        if chance.random() < 0.5:
            world.owners.breaks = chance.randint(0, 3)
        await world.drive_and_die(deaths)
        await world.settle()
        swapped.set()
        await tasks[-1]
        world.done = True
        await asyncio.gather(shoppers, *tasks)

        layout = await world.replica().layout()
        assert layout.serving is not None
        assert layout.present == layout.written == layout.filled == {layout.serving, layout.spare}
        for generation in layout.present:
            assert_equal(world.index(generation), world.owners)
        record = world.engine.record
        assert record is not None
        assert (record.document.step, record.document.left_out) == (Step.DONE, 0)

    asyncio.run(run())


@given(SEEDS, st.integers(1, 4))
@settings(max_examples=100)
def test_whatever_is_lost_while_whatever_goes_on_is_there_again(seed: int, losses: int) -> None:
    async def run() -> None:
        world = World(chance := random.Random(seed))
        for _ in range(10):
            world.owners.change()
        await world.settle()
        tasks = [asyncio.create_task(task) for task in (world.consume(), world.change(15), world.drive_and_die(4))]

        async def operate() -> None:
            for _ in range(losses):
                for _ in range(chance.randint(0, 200)):
                    await asyncio.sleep(0)
                operation = chance.choice([start_rebuild, back, drop_old, None])
                if operation is None:
                    if world.engine.indices:
                        world.engine.lose(chance.choice(sorted(world.engine.indices)))
                    continue
                try:
                    await operation(world.replica())
                except (FailedPrecondition, Aborted, Unavailable):
                    continue

        await asyncio.gather(operate(), *tasks[1:])
        await world.settle()
        world.done = True
        await asyncio.gather(*tasks)
        layout = await world.replica().layout()
        assert layout.built
        for generation in layout.written & layout.filled:
            assert_equal(world.index(generation), world.owners)

    asyncio.run(run())


@pytest.fixture
async def world() -> World:
    world = World(random.Random(1))
    for _ in range(30):
        world.owners.change()
    await world.settle()
    await world.consume_all()
    return world


async def test_the_old_index_stays_as_fresh_and_takes_its_place_again(world: World) -> None:
    before = world.engine.layout.serving
    generations = world.replica()
    with pytest.raises(FailedPrecondition, match="no old index"):
        await back(generations)
    rebuild = await start_rebuild(generations)
    with pytest.raises(FailedPrecondition, match="being rebuilt"):
        await back(generations)
    with pytest.raises(FailedPrecondition, match="being rebuilt"):
        await drop_old(generations)
    await world.settle()
    assert world.engine.layout.serving == rebuild.generation != before
    world.done = True
    await world.change(20)
    await world.consume()
    await back(generations)
    assert world.engine.layout.serving == before
    # As where the answer was lost, and it is asked for again.
    await roll_back(f"{rebuild.generation}", generations)
    assert world.engine.layout.serving == before
    with pytest.raises(Aborted):
        await roll_back("99", generations)
    for generation in (before, rebuild.generation):
        assert_equal(world.index(generation), world.owners)
    await back(generations)
    assert world.engine.layout.serving == rebuild.generation
    await drop_old(generations)
    assert (await generations.layout()).present == {rebuild.generation}
    with pytest.raises(FailedPrecondition):
        await back(generations)


async def test_the_old_index_serves_at_once_when_the_new_one_is_lost(world: World) -> None:
    before = world.engine.layout.serving
    rebuild = await start_rebuild(world.replica())
    await world.settle()
    world.engine.lose(rebuild.generation)
    assert not await keep(holder="a", generations=world.replica(), sources=world.owners)
    layout = await world.replica().layout()
    assert (layout.serving, layout.built) == (before, True)


async def test_a_rebuild_goes_on_where_another_died_and_reads_only_what_is_left(world: World) -> None:
    rebuild = await start_rebuild(world.replica())
    taken: list[str] = []
    stream = world.owners.products

    async def products(token: str = "") -> AsyncIterator[tuple[Sequence[Product], str]]:
        async for chunk, following in stream(token):
            taken.extend(product.product_id for product in chunk)
            yield chunk, following
            if len(taken) == 4:
                raise Unavailable("the stream broke off")

    world.owners.products = products  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await keep(holder="a", generations=world.replica(), sources=world.owners, lease=60)
    assert world.engine.record is not None
    assert (world.engine.record.document.step, world.engine.record.document.trouble) == (
        Step.PRODUCTS, "the stream broke off",
    )  # fmt: skip
    # Another one only once the lease has run out.
    assert not await keep(holder="b", generations=world.replica(), sources=world.owners, lease=60)
    world.engine.record = replace(world.engine.record, document=replace(world.engine.record.document, until=0))
    assert await keep(holder="b", generations=world.replica(), sources=world.owners, lease=60)
    everything = sorted(world.owners.products_)
    # Once in all to be written, and once to be compared.
    assert taken == everything * 2
    assert world.engine.layout.serving == rebuild.generation


async def test_a_token_that_its_owner_does_not_know_any_more_begins_the_stream_again(world: World) -> None:
    await start_rebuild(world.replica())
    world.owners.breaks = len(world.owners.categories_) + len(world.owners.availability_) + 3
    for _ in range(world.owners.breaks - 2):
        with pytest.raises(Unavailable):
            await keep(holder="a", generations=world.replica(), sources=world.owners)
        world.owners.breaks = min(world.owners.breaks, 1)
        break
    world.owners.refuses_tokens = True
    world.owners.breaks = 0
    assert await keep(holder="a", generations=world.replica(), sources=world.owners)
    assert_equal(world.index(world.engine.layout.serving), world.owners)


async def test_what_the_engine_refuses_is_left_out_and_counted() -> None:
    world = World(random.Random(2), refused=frozenset({"p1"}))
    while "p1" not in world.owners.products_:
        world.owners.change()
    await world.settle()
    await start_rebuild(world.replica())
    await world.settle()
    assert world.engine.record is not None
    assert world.engine.record.document.left_out == 1
    shown = world.index(world.engine.layout.serving).shown()
    assert shown.keys() == world.owners.products_.keys() - {"p1"}


async def test_a_generation_that_lacks_something_is_mended_before_it_serves(world: World) -> None:
    """As if an event of the time before had been lost: nobody would tell it again."""
    rebuild = await start_rebuild(world.replica())
    stream = world.owners.products
    passes = 0

    async def products(token: str = "") -> AsyncIterator[tuple[Sequence[Product], str]]:
        nonlocal passes
        passes += 1
        async for chunk, following in stream(token):
            yield [p for p in chunk if passes > 1 or p.product_id != "p3"], following

    world.owners.products = products  # type: ignore[method-assign]
    assert "p3" in world.owners.products_
    assert await keep(holder="a", generations=world.replica(), sources=world.owners)
    assert world.engine.record is not None
    assert world.engine.record.document.repaired == 1
    assert_equal(world.index(rebuild.generation), world.owners)


async def test_while_nothing_complete_serves_a_rebuild_can_not_be_asked_for() -> None:
    world = World(random.Random(3))
    with pytest.raises(IndexMissing):
        await start_rebuild(world.replica())
    await world.replica().prepare()
    with pytest.raises(IndexMissing):
        await start_rebuild(world.replica())
