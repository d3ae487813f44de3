"""The tree of categories, beside a model that is nothing but a map from child to parent."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from catalog_svc.adapters.memory import MemoryTaxonomy
from catalog_svc.application.taxonomy import category_for_path, create_category, tell_paths, update_category
from catalog_svc.domain.category import MAX_DEPTH, Tree, added, changed, path_violations
from chassis.clock import ManualClock
from chassis.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, PolymartError
from chassis.ids import sequential_ids
from chassis.messaging.envelope import Envelope
from tests.unit.catalog.support import run

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
IDS = st.sampled_from("abcdef")
NAMES = st.sampled_from(["Home", "Lamps"])


def tree(**parents: str) -> Tree:
    """Categories by id, each called as its id."""
    grown = Tree()
    for category_id, parent_id in parents.items():
        grown = grown.with_(added(grown, category_id, parent_id, category_id, etag="e", now=NOON))
    return grown


def test_a_category_lies_below_all_above_it() -> None:
    home = tree(home="", lamps="home", desk="lamps", garden="")
    assert home.path("desk") == ("home", "lamps", "desk")
    assert home.subtree("home") == ["home", "lamps", "desk"]
    assert [c.category_id for c in home.listed()] == ["garden", "home", "lamps", "desk"]
    assert [c.category_id for c in home.listed("home")] == ["lamps", "desk"]
    assert home.find(["home", "lamps"]) == "lamps"
    assert home.find(["lamps"]) == ""


def test_what_would_break_the_tree_is_refused() -> None:
    home = tree(home="", lamps="home", desk="lamps", garden="")
    refused: list[tuple[type[PolymartError], str, Any]] = [
        (AlreadyExists, "CATEGORY_EXISTS", lambda: added(home, "home", "", "New", etag="e", now=NOON)),
        (AlreadyExists, "CATEGORY_NAME_TAKEN", lambda: added(home, "new", "home", "lamps", etag="e", now=NOON)),
        (NotFound, "CATEGORY_NOT_FOUND", lambda: added(home, "new", "none", "New", etag="e", now=NOON)),
        (NotFound, "CATEGORY_NOT_FOUND", lambda: changed(home, "none", "", "New", etag="e", now=NOON)),
        (FailedPrecondition, "CATEGORY_CYCLE", lambda: changed(home, "home", "desk", "home", etag="e", now=NOON)),
        (FailedPrecondition, "CATEGORY_CYCLE", lambda: changed(home, "home", "home", "home", etag="e", now=NOON)),
        (AlreadyExists, "CATEGORY_NAME_TAKEN", lambda: changed(home, "garden", "", "home", etag="e", now=NOON)),
    ]
    for kind, reason, attempt in refused:
        with pytest.raises(kind) as error:
            attempt()
        assert error.value.reason == reason


def test_categories_lie_eight_deep_at_most_and_a_move_counts_what_lies_below() -> None:
    names = [f"c{n}" for n in range(MAX_DEPTH)]
    deep = tree(**{name: names[n - 1] if n else "" for n, name in enumerate(names)}, top="", below="top")
    with pytest.raises(FailedPrecondition):
        added(deep, "more", names[-1], "more", etag="e", now=NOON)
    assert changed(deep, "top", names[-3], "top", etag="e", now=NOON).parent_id == names[-3]
    with pytest.raises(FailedPrecondition):
        changed(deep, "top", names[-2], "top", etag="e", now=NOON)
    assert [v.field for v in path_violations(["a"] * 9, "path")] == ["path"]
    assert [v.field for v in path_violations(["a", "", "x" * 201], "path")] == ["path[1]", "path[2]"]


async def test_a_path_is_made_once_and_only_where_it_is_missing() -> None:
    store = MemoryTaxonomy()
    ports: Any = {"categories": store, "clock": ManualClock(), "new_id": sequential_ids()}
    grown, desk = await category_for_path(["Home", "Lamps", "Desk"], **ports)
    assert await category_for_path(["Home", "Lamps", "Desk"], grown, **ports) == (grown, desk)
    # Where the tree that is passed on is an old one, it is read again.
    _, chairs = await category_for_path(["Home", "Chairs"], Tree(), **ports)
    known = await store.tree()
    assert known.path(chairs) == ("Home", "Chairs")
    assert len(known.categories) == known.version == 4


class Contested(MemoryTaxonomy):
    """Somebody else is always faster."""

    async def commit(self, before: Tree, category: object) -> bool:
        return False


async def test_a_change_that_always_loses_gives_up() -> None:
    ports: Any = {"categories": Contested(), "clock": ManualClock(), "new_id": sequential_ids()}
    for attempt in (create_category("a", "", "A", **ports), category_for_path(["A"], **ports)):
        with pytest.raises(Aborted):
            await attempt


class Categories(RuleBasedStateMachine):
    """Whatever is created, renamed, moved and told: no cycle, and what others heard ends as the tree is."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryTaxonomy()
        self.ports: Any = {"categories": self.store, "clock": ManualClock(), "new_id": sequential_ids()}
        self.model: dict[str, tuple[str, str]] = {}

    @rule(category_id=IDS, parent_id=IDS | st.just(""), name=NAMES)
    def create(self, category_id: str, parent_id: str, name: str) -> None:
        good = (
            category_id not in self.model
            and parent_id in ("", *self.model)
            and (parent_id, name) not in self.model.values()
        )
        self.attempt(good, create_category(category_id, parent_id, name, **self.ports))
        if good:
            self.model[category_id] = parent_id, name

    @rule(category_id=IDS, parent_id=IDS | st.just(""), name=NAMES)
    def move(self, category_id: str, parent_id: str, name: str) -> None:
        unchanged = self.model.get(category_id) == (parent_id, name)
        good = (
            category_id in self.model
            and parent_id in ("", *self.model)
            and category_id not in self.above(parent_id)
            and (unchanged or (parent_id, name) not in self.model.values())
        )
        self.attempt(good, update_category(category_id, parent_id=parent_id, name=name, **self.ports))
        if good:
            self.model[category_id] = parent_id, name

    @rule()
    def tell(self) -> None:
        run(tell_paths(categories=self.store))

    def above(self, category_id: str) -> list[str]:
        found = []
        while category_id:
            found.append(category_id)
            category_id = self.model[category_id][0]
        return found

    def attempt(self, good: bool, call: Any) -> None:
        if good:
            run(call)
        else:
            with pytest.raises(PolymartError):
                run(call)

    @invariant()
    def the_tree_is_the_model(self) -> None:
        known = run(self.store.tree())
        assert {c.category_id: (c.parent_id, c.name) for c in known.categories.values()} == self.model
        for category_id in self.model:
            assert known.path(category_id) == tuple(self.model[each][1] for each in reversed(self.above(category_id)))

    def teardown(self) -> None:
        run(tell_paths(categories=self.store))
        heard: dict[str, tuple[int, tuple[str, ...]]] = {}
        for entry in self.store.outbox.entries.values():
            category = entry_category(entry)
            news = category.path_version, tuple(category.path)
            heard[category.category_id] = max(news, heard.get(category.category_id, news))
        known = run(self.store.tree())
        assert {key: path for key, (_, path) in heard.items()} == {key: known.path(key) for key in known.categories}
        assert known.told == known.version


def entry_category(entry: Any) -> Any:
    payload: Any = Envelope.decode(entry.subject, entry.headers, entry.data).payload
    return payload.category


TestCategories = Categories.TestCase
TestCategories.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_what_was_told_is_told_once(names: list[str]) -> None:
    store = MemoryTaxonomy()
    run(category_for_path(names, categories=store, clock=ManualClock(), new_id=sequential_ids()))
    assert run(tell_paths(categories=store))
    assert not run(tell_paths(categories=store))
    assert len(store.outbox.entries) == len(names)
