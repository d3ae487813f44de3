"""Changing the tree of categories and the product types."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from catalog_svc.application.ports import Categories, ProductTypes
from catalog_svc.domain import category as rules
from catalog_svc.domain.category import Category, Tree
from catalog_svc.domain.product import to_the_millisecond
from catalog_svc.domain.product_type import Definition, ProductType
from chassis.clock import Clock
from chassis.errors import Aborted, AlreadyExists, NotFound, stale_etag
from chassis.ids import NewId

# Changes of the tree take turns, and every one that lost reads the tree again.
_ATTEMPTS = 20


async def create_category(
    category_id: str, parent_id: str, name: str, *, categories: Categories, clock: Clock, new_id: NewId
) -> tuple[Tree, Category]:
    """Store a new category; without an id it gets one. Raises what domain.category.added does, Aborted."""
    category_id = category_id or new_id()
    for _ in range(_ATTEMPTS):
        tree = await categories.tree()
        category = rules.added(tree, category_id, parent_id, name, etag=new_id(), now=clock.now())
        if await categories.commit(tree, category):
            return tree.with_(category), category
    raise _overtaken()


async def category_for_path(
    path: Sequence[str], tree: Tree | None = None, *, categories: Categories, clock: Clock, new_id: NewId
) -> tuple[Tree, str]:
    """The tree with this path, and the id of its category, which is made with all that is missing above it. With a
    `tree` of a moment ago, it isn't read again unless somebody else changed it. Raises ResourceExhausted, Aborted."""
    for attempt in range(_ATTEMPTS):
        if tree is None or attempt:
            tree = await categories.tree()
        parent_id, depth = "", 0
        while depth < len(path) and (found := tree.find(path[: depth + 1])):
            parent_id, depth = found, depth + 1
        while depth < len(path):
            category = rules.added(tree, new_id(), parent_id, path[depth], etag=new_id(), now=clock.now())
            if not await categories.commit(tree, category):
                break
            tree, parent_id, depth = tree.with_(category), category.category_id, depth + 1
        else:
            return tree, parent_id
    raise _overtaken()


async def update_category(
    category_id: str,
    *,
    name: str | None = None,
    parent_id: str | None = None,
    etag: str = "",
    categories: Categories,
    clock: Clock,
    new_id: NewId,
) -> tuple[Tree, Category]:
    """Rename or move a category; None leaves as it is, and what changes nothing isn't a write.

    One document is written, at the version of the tree that was checked: so two moves at once can't make a cycle.
    Raises what domain.category.changed does, Aborted.
    """
    for _ in range(_ATTEMPTS):
        tree = await categories.tree()
        before = tree.get(category_id)
        if etag and etag != before.etag:
            raise stale_etag("category", category_id)
        place = before.parent_id if parent_id is None else parent_id
        called = before.name if name is None else name
        if (place, called) == (before.parent_id, before.name):
            return tree, before
        after = rules.changed(tree, category_id, place, called, etag=new_id(), now=clock.now())
        if await categories.commit(tree, after):
            return tree.with_(after), after
    raise _overtaken()


async def tell_paths(*, categories: Categories) -> bool:
    """Tell others the paths that changed, and whether there were any. Can be broken off anywhere and begun again: what
    is told is recorded with each category, and the tree is told only once nothing of it was left out."""
    tree = await categories.tree()
    untold = tree.untold()
    told = await categories.tell(untold)
    if told == len(untold) and tree.told < tree.version:
        await categories.all_told(tree.version)
    return bool(untold)


@dataclass(frozen=True, slots=True)
class TypeChange:
    """New values for a product type; None leaves as it is. With an etag, only if that is still its current one."""

    product_type_id: str
    name: str | None = None
    definitions: tuple[Definition, ...] | None = None
    etag: str = ""


async def create_product_type(
    product_type_id: str,
    name: str,
    definitions: tuple[Definition, ...],
    *,
    types: ProductTypes,
    clock: Clock,
    new_id: NewId,
) -> ProductType:
    """Store a new product type; without an id it gets one. Raises AlreadyExists."""
    now = to_the_millisecond(clock.now())
    type_ = ProductType(product_type_id or new_id(), name, definitions, 1, new_id(), now, now)
    if not await types.save_type(type_):
        raise AlreadyExists(f"there is a product type {type_.product_type_id} already", reason="PRODUCT_TYPE_EXISTS")
    return type_


async def get_product_type(product_type_id: str, *, types: ProductTypes) -> ProductType:
    """Raises NotFound."""
    if type_ := (await types.types([product_type_id])).get(product_type_id):
        return type_
    raise NotFound(f"there is no product type {product_type_id}", reason="PRODUCT_TYPE_NOT_FOUND")


async def update_product_type(change: TypeChange, *, types: ProductTypes, clock: Clock, new_id: NewId) -> ProductType:
    """Change a product type; products stay as they are. Raises NotFound, Aborted (STALE_ETAG, CONCURRENT_CHANGE)."""
    for _ in range(_ATTEMPTS):
        before = await get_product_type(change.product_type_id, types=types)
        if change.etag and change.etag != before.etag:
            raise stale_etag("product type", change.product_type_id)
        name = before.name if change.name is None else change.name
        definitions = before.definitions if change.definitions is None else change.definitions
        if (name, definitions) == (before.name, before.definitions):
            return before
        after = replace(
            before,
            name=name,
            definitions=definitions,
            version=before.version + 1,
            etag=new_id(),
            update_time=to_the_millisecond(clock.now()),
        )
        if await types.save_type(after):
            return after
    raise Aborted(f"product type {change.product_type_id} is being changed by others all the time; try again later")


def _overtaken() -> Aborted:
    return Aborted("the categories are being changed by others all the time; try again later")
