"""The tree of categories: who lies in whom, and what may not be done to it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from catalog_svc.domain.product import to_the_millisecond
from catalog_svc.domain.rules import text
from chassis.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted, Violation

MAX_NAME = 200
MAX_DEPTH = 8
# The tree is read whole to guard each change of it.
MAX_CATEGORIES = 10_000


@dataclass(frozen=True, slots=True)
class Category:
    """A category as stored; `parent_id` is empty at the top.

    `path` is the one that others were told, at version `path_version` of the tree: it follows a change of the tree a
    moment later. What it is now, only the tree knows.
    """

    category_id: str
    parent_id: str
    name: str
    version: int
    etag: str
    create_time: datetime
    update_time: datetime
    path: tuple[str, ...] = ()
    path_version: int = 0


@dataclass(frozen=True)
class Tree:
    """All categories as they were at one version of the tree, which counts its changes. Others were told all paths up
    to version `told`."""

    version: int = 0
    told: int = 0
    categories: Mapping[str, Category] = field(default_factory=dict)

    @cached_property
    def _children(self) -> Mapping[str, Sequence[Category]]:
        children: dict[str, list[Category]] = defaultdict(list)
        for category in self.categories.values():
            children[category.parent_id].append(category)
        return children

    @cached_property
    def _by_place(self) -> Mapping[tuple[str, str], str]:
        return {(category.parent_id, category.name): category.category_id for category in self.categories.values()}

    def get(self, category_id: str) -> Category:
        """Raises NotFound."""
        try:
            return self.categories[category_id]
        except KeyError:
            raise NotFound(f"there is no category {category_id}", reason="CATEGORY_NOT_FOUND") from None

    def path(self, category_id: str) -> tuple[str, ...]:
        """The names from the top down."""
        return tuple(reversed([category.name for category in self._upwards(category_id)]))

    def find(self, path: Sequence[str]) -> str:
        """The id of the category with this path; empty if there is none."""
        found = ""
        for name in path:
            if not (found := self._by_place.get((found, name), "")):
                break
        return found

    def subtree(self, category_id: str) -> list[str]:
        """The ids of a category and all below it."""
        found = [category_id]
        for each in found:
            found += [child.category_id for child in self._children.get(each, ())]
        return found

    def listed(self, ancestor_id: str = "") -> list[Category]:
        """All categories, or those below one, ordered by path."""
        below = set(self.subtree(ancestor_id)) - {ancestor_id}
        return sorted((self.categories[each] for each in below), key=lambda c: self.path(c.category_id))

    def untold(self) -> list[Category]:
        """The categories whose path isn't the one that others were told, with the path as it is in this tree."""
        return [
            replace(category, path=path, path_version=self.version)
            for category in self.categories.values()
            if (path := self.path(category.category_id)) != category.path
        ]

    def with_(self, category: Category) -> "Tree":
        return Tree(self.version + 1, self.told, {**self.categories, category.category_id: category})

    def _upwards(self, category_id: str) -> Iterator[Category]:
        while category_id:
            yield (category := self.categories[category_id])
            category_id = category.parent_id

    def _height(self, category_id: str) -> int:
        """How many levels there are from a category down, itself included."""
        return 1 + max((self._height(c.category_id) for c in self._children.get(category_id, ())), default=0)


def added(tree: Tree, category_id: str, parent_id: str, name: str, *, etag: str, now: datetime) -> Category:
    """A new category in `tree`.

    Raises NotFound for the parent, AlreadyExists for id and name, FailedPrecondition where it would lie too deep,
    ResourceExhausted.
    """
    if category_id in tree.categories:
        raise AlreadyExists(f"there is a category {category_id} already", reason="CATEGORY_EXISTS")
    if len(tree.categories) >= MAX_CATEGORIES:
        raise ResourceExhausted(f"there are {MAX_CATEGORIES:,} categories already", reason="TOO_MANY_CATEGORIES")
    now = to_the_millisecond(now)
    category = Category(category_id, parent_id, name, 1, etag, now, now)
    _check_place(tree, category, height=1)
    return category


def changed(tree: Tree, category_id: str, parent_id: str, name: str, *, etag: str, now: datetime) -> Category:
    """A category of `tree` under another name or parent, with all below it.

    Raises NotFound for it or the parent, AlreadyExists for the name, FailedPrecondition where it would lie in itself
    or too deep.
    """
    before = tree.get(category_id)
    if parent_id in tree.subtree(category_id):
        raise FailedPrecondition(
            f"category {parent_id} lies in {category_id}, which can't be moved into it", reason="CATEGORY_CYCLE"
        )
    after = replace(
        before,
        parent_id=parent_id,
        name=name,
        version=before.version + 1,
        etag=etag,
        update_time=to_the_millisecond(now),
    )
    _check_place(tree, after, height=tree._height(category_id))
    return after


def _check_place(tree: Tree, category: Category, height: int) -> None:
    above = tree.path(tree.get(category.parent_id).category_id) if category.parent_id else ()
    if len(above) + height > MAX_DEPTH:
        raise FailedPrecondition(f"categories lie at most {MAX_DEPTH} levels deep", reason="CATEGORY_TOO_DEEP")
    path = (*above, category.name)
    if (other := tree.find(path)) and other != category.category_id:
        raise AlreadyExists(
            f"category {other} is called {category.name!r} in the same place", reason="CATEGORY_NAME_TAKEN"
        )


def name_violations(name: str, field: str) -> list[Violation]:
    """One violation if a category can't have this name."""
    return list(text(name, field, MAX_NAME, required=True))


def path_violations(path: Sequence[str], field: str) -> list[Violation]:
    """What is wrong with the names of a path from the top down."""
    if len(path) > MAX_DEPTH:
        return [Violation(field, f"has {len(path)}, over {MAX_DEPTH}")]
    return [fault for position, name in enumerate(path) for fault in name_violations(name, f"{field}[{position}]")]
