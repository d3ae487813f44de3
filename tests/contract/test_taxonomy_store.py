"""What every store of categories and product types does, on each engine that is there and with both drivers."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from catalog_svc.adapters.memory import MemoryTaxonomy
from catalog_svc.adapters.mongo import MAX_UNSENT, Mongo
from catalog_svc.adapters.mongo_taxonomy import MongoTaxonomy
from catalog_svc.application.taxonomy import (
    category_for_path,
    create_category,
    tell_paths,
    update_category,
)
from catalog_svc.domain.category import Category, Tree, added, changed
from catalog_svc.domain.product_type import Definition, Kind, ProductType
from chassis.clock import ManualClock
from chassis.errors import FailedPrecondition
from chassis.ids import uuid7
from chassis.messaging.envelope import Envelope
from tests.contract.recorder import Recorder

Store = MemoryTaxonomy | MongoTaxonomy

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
async def store(mongo_or_memory: Mongo | None) -> Store:
    if mongo_or_memory is None:
        return MemoryTaxonomy()
    taxonomy = MongoTaxonomy(mongo_or_memory)
    await taxonomy.migrate()
    return taxonomy


@pytest.fixture
async def replicas(empty_mongo: Mongo) -> tuple[MongoTaxonomy, MongoTaxonomy]:
    """Two over one database."""
    await MongoTaxonomy(empty_mongo).migrate()
    return MongoTaxonomy(empty_mongo), MongoTaxonomy(empty_mongo)


def ports(store: Store) -> Any:
    return {"categories": store, "clock": ManualClock(NOON), "new_id": uuid7}


def new(tree: Tree, category_id: str, parent_id: str = "") -> Category:
    return added(tree, category_id, parent_id, category_id.title(), etag="e", now=NOON)


async def told(store: Store) -> list[tuple[str, tuple[str, ...], int]]:
    """The news that wait to be published."""
    entries = await store.outbox.pending(1_000)
    payloads: list[Any] = [Envelope.decode(e.subject, e.headers, e.data).payload for e in entries]
    return sorted((p.category.category_id, tuple(p.category.path), p.category.path_version) for p in payloads)


async def test_a_tree_is_read_as_it_was_made(store: Store) -> None:
    assert await store.tree() == Tree()
    home = new(await store.tree(), "home")
    assert await store.commit(await store.tree(), home)
    lamps = new(await store.tree(), "lamps", "home")
    assert await store.commit(await store.tree(), lamps)
    assert await store.tree() == Tree(2, 0, {"home": home, "lamps": lamps})
    moved = changed(await store.tree(), "lamps", "", "Lights", etag="e2", now=NOON)
    assert await store.commit(await store.tree(), moved)
    assert await store.tree() == Tree(3, 0, {"home": home, "lamps": moved})


async def test_of_two_changes_of_one_tree_one_wins(store: Store) -> None:
    before = await store.tree()
    outcomes = await asyncio.gather(*(store.commit(before, new(before, f"c{n}")) for n in range(5)))
    assert sorted(outcomes) == [False] * 4 + [True]
    assert (await store.tree()).version == len((await store.tree()).categories) == 1


async def test_two_moves_at_once_make_no_cycle(store: Store) -> None:
    for category_id in ("a", "b"):
        await create_category(category_id, "", category_id, **ports(store))
    moves = [update_category(one, parent_id=other, **ports(store)) for one, other in (("a", "b"), ("b", "a"))]
    results = await asyncio.gather(*moves, return_exceptions=True)
    (refused,) = [result for result in results if isinstance(result, BaseException)]
    assert isinstance(refused, FailedPrecondition)
    tree = await store.tree()
    assert sorted(len(tree.path(category_id)) for category_id in "ab") == [1, 2]


async def test_paths_are_made_once_by_any_number_at_a_time(store: Store) -> None:
    path = ["Home", "Lamps"]
    made = await asyncio.gather(*(category_for_path(path, **ports(store)) for _ in range(4)))
    assert len({category_id for _, category_id in made}) == 1
    assert len((await store.tree()).categories) == 2


async def test_a_path_is_told_with_every_change_of_it_and_only_then(store: Store) -> None:
    _, desk = await category_for_path(["Home", "Lamps", "Desk"], **ports(store))
    home, lamps = (await store.tree()).find(["Home"]), (await store.tree()).find(["Home", "Lamps"])
    await tell_paths(categories=store)
    expected = [(home, ("Home",), 3), (lamps, ("Home", "Lamps"), 3), (desk, ("Home", "Lamps", "Desk"), 3)]
    assert await told(store) == sorted(expected)
    assert (await store.tree()).told == 3
    await store.outbox.remove(await store.outbox.pending(100))
    await update_category(lamps, parent_id="", **ports(store))
    await tell_paths(categories=store)
    await tell_paths(categories=store)
    assert await told(store) == sorted([(lamps, ("Lamps",), 4), (desk, ("Lamps", "Desk"), 4)])
    tree = await store.tree()
    assert (tree.categories[desk].path, tree.categories[desk].path_version) == (("Lamps", "Desk"), 4)
    assert (tree.categories[desk].version, tree.categories[lamps].version) == (1, 2)


async def test_older_news_change_nothing(store: Store) -> None:
    await create_category("a", "", "A", **ports(store))
    category = (await store.tree()).categories["a"]
    await store.tell([replace(category, path=("New",), path_version=9)])
    await store.tell([replace(category, path=("Old",), path_version=8)])
    assert await told(store) == [("a", ("New",), 9)]
    assert (await store.tree()).categories["a"].path == ("New",)


async def test_whoever_comes_next_carries_out_what_a_dead_one_decided(
    replicas: tuple[MongoTaxonomy, MongoTaxonomy], monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, other = replicas
    await create_category("a", "", "A", **ports(other))
    tree = await dying.tree()

    async def die(*_: object) -> None:
        raise ConnectionResetError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(dying, "_carry_out", die)
        for category in (new(tree, "b", "a"), changed(tree, "a", "", "Z", etag="e2", now=NOON)):
            with pytest.raises(ConnectionResetError):
                await dying.commit(tree, category)
            tree = await other.tree()
            assert tree.categories[category.category_id] == category
    assert tree.path("b") == ("Z", "B")
    assert not await other.commit(replace(tree, version=tree.version - 1), new(tree, "c"))


async def test_paths_that_one_replica_told_half_are_told_by_the_next(
    replicas: tuple[MongoTaxonomy, MongoTaxonomy],
) -> None:
    one, other = replicas
    await category_for_path(["Home", "Lamps"], **ports(one))
    untold = (await one.tree()).untold()
    await one.tell(untold[:1])
    await tell_paths(categories=other)
    assert [(path, version) for _, path, version in await told(other)] in (
        [(("Home",), 2), (("Home", "Lamps"), 2)], [(("Home", "Lamps"), 2), (("Home",), 2)],
    )  # fmt: skip
    assert (await other.tree()).untold() == []


async def test_categories_that_an_import_makes_are_not_read_again_for_each(
    replicas: tuple[MongoTaxonomy, MongoTaxonomy], recorder: Recorder
) -> None:
    store, other = replicas
    tree = await store.tree()
    await create_category("first", "", "First", **ports(other))
    for n in range(60):
        tree, _ = await category_for_path([f"Shelf {n % 6}", f"Board {n}"], tree, **ports(store))
        if n % 10 == 0:  # the next batch begins
            tree = await store.tree()
    recorder.on = False
    reads = [command for _, command in recorder.commands if command.get("find") == "categories"]
    assert len(reads) == 1  # of what another made
    assert len(tree.categories) == 67
    assert await other.tree() == tree


async def test_a_tree_is_not_told_while_a_full_outbox_holds_one_of_its_paths_back(
    replicas: tuple[MongoTaxonomy, MongoTaxonomy],
) -> None:
    store, _ = replicas
    await create_category("a", "", "A", **ports(store))
    await create_category("b", "", "B", **ports(store))
    for n in range(MAX_UNSENT - 1):
        await tell_paths(categories=store)
        await update_category("a", name=f"A{n}", **ports(store))
    await tell_paths(categories=store)
    before = await store.tree()
    assert before.told == before.version
    await update_category("a", name="One more", **ports(store))
    await update_category("b", name="Beside it", **ports(store))
    assert await tell_paths(categories=store)
    tree = await store.tree()
    assert ([c.category_id for c in tree.untold()], tree.told) == (["a"], before.version)
    await store.outbox.remove(await store.outbox.pending(1_000))
    assert await tell_paths(categories=store)
    assert await told(store) == [("a", ("One more",), tree.version)]
    assert (await store.tree()).told == tree.version


async def test_product_types_are_kept_by_version(store: Store) -> None:
    definitions = (
        Definition("height", Kind.NUMBER, "mm", required=True, facet=True),
        Definition("colour", Kind.ENUM, values=("red", "blue"), searchable=True),
    )
    types = [ProductType(type_id, "Cup", definitions, 1, "e", NOON, NOON) for type_id in ("b", "a", "c")]
    assert [await store.save_type(type_) for type_ in [*types, types[0]]] == [True, True, True, False]
    assert await store.types(["b", "x"]) == {"b": types[0]}
    later = replace(types[0], name="Mug", definitions=(), version=2)
    assert await store.save_type(later)
    assert not await store.save_type(later)
    assert await store.types(["b"]) == {"b": later}
    assert [type_.product_type_id for type_ in await store.type_page("", 2)] == ["a", "b"]
    assert [type_.product_type_id for type_ in await store.type_page("b", 2)] == ["c"]
