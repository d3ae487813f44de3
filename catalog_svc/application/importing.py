"""Storing many products at once: every row is answered, and a bad one stops no other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from catalog_svc.application.ports import Categories, Saved, Shelf, Taxonomy
from catalog_svc.application.products import ATTEMPTS
from catalog_svc.application.references import References
from catalog_svc.application.taxonomy import category_for_path
from catalog_svc.domain.category import Tree
from catalog_svc.domain.product import (
    Details,
    Product,
    ProductCreated,
    ProductUpdated,
    Stored,
    create,
    revise,
)
from chassis.clock import Clock
from chassis.errors import Aborted, ResourceExhausted, Violation
from chassis.ids import NewId

NEW = "new:"


class Outcome(Enum):
    CREATED = auto()
    UPDATED = auto()
    UNCHANGED = auto()
    REJECTED = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """One product to import, under the caller's number, and all that is wrong with it by itself.

    `category_path` names its category from the top down, where `create_category` says whether one that is missing is
    made. With `validate_only` it is answered as if it was stored after the others that are only validated, and isn't.
    """

    number: int
    product_id: str
    details: Details
    violations: Sequence[Violation] = ()
    category_path: tuple[str, ...] = ()
    create_category: bool = True
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a row. `product_id` is empty where it was rejected, `violations` where it wasn't."""

    row: int
    outcome: Outcome
    product_id: str = ""
    violations: Sequence[Violation] = ()


@dataclass(frozen=True, slots=True)
class Importer:
    """Stores rows of one caller. Those that are only validated are saved in `trial`."""

    products: Shelf
    trial: Shelf
    taxonomy: Taxonomy
    clock: Clock
    new_id: NewId
    by: str = ""

    async def store(self, rows: Sequence[Row]) -> list[Answer]:
        """Create or replace the products of `rows`, as if one after the other; the answers come in any order.

        A row is rejected for what is wrong with it, and for a SKU that another product has or an earlier row took.
        Raises errors.Unavailable where the store can't be reached; the rows may then be stored or not, and can be sent
        again.
        """
        checked, places = await self._checked(rows), _Places(self.taxonomy, self.clock, self.new_id)
        answers = [_rejected(row, row.violations) for row in checked if row.violations]
        todo: Sequence[Row] = [row for row in checked if not row.violations]
        patience = ATTEMPTS
        while todo:
            round_, later = _before_a_repetition(todo)
            answered, overtaken, waiting = await self._round(round_, places)
            answers += answered
            patience = ATTEMPTS if answered else patience - 1
            if not patience:
                fault = Violation("product_id", "is being changed by others all the time; send the row again later")
                answers += [_rejected(row, [fault]) for row in overtaken]
                overtaken, patience = [], ATTEMPTS
            todo = [*overtaken, *waiting, *later]
        return answers

    async def _checked(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with what is wrong with the categories and types that they name by id, and with their attributes."""
        references = await References.of([row.details for row in rows if not row.violations], self.taxonomy)
        return [row if row.violations else replace(row, violations=references.violations(row.details)) for row in rows]

    async def _round(self, rows: Sequence[Row], places: "_Places") -> tuple[list[Answer], list[Row], list[Row]]:
        """The answers to rows of different products, all validated or all stored; the rows that others overtook; and
        those that wait for what becomes of rows before them."""
        shelf = self.trial if rows[0].validate_only else self.products
        stored = await shelf.get([row.product_id for row in rows])
        holders = await self._holders(rows, stored, shelf)
        undecided: set[str] = set()
        answers: list[Answer] = []
        waiting: list[Row] = []
        writes: list[tuple[Row, ProductCreated | ProductUpdated]] = []
        for row in rows:
            others = {holders.get(sku, row.product_id) for sku in row.details.skus} - {row.product_id}
            if others and others <= undecided:
                # It stands in the way of those after it as if it was stored, and what it would free isn't free.
                holders = {**dict.fromkeys(row.details.skus, row.product_id), **holders}
                undecided.add(row.product_id)
                waiting.append(row)
                continue
            if faults := [*_taken(row, holders), *await places.faults(row)]:
                answers.append(_rejected(row, faults))
                continue
            try:
                row = await places.placed(row)
            except (Aborted, ResourceExhausted) as error:
                answers.append(_rejected(row, [_misplaced(str(error))]))
                continue
            before = stored.get(row.product_id)
            event = self._event(row, before)
            if isinstance(event, ProductUpdated) and not event.changed:
                answers.append(Answer(row.number, Outcome.UNCHANGED, row.product_id))
                continue
            _claim(row, before, holders)
            undecided.add(row.product_id)
            writes.append((row, event))
        overtaken: list[Row] = []
        outcomes = await shelf.save([event for _, event in writes]) if writes else ()
        for (row, event), outcome in zip(writes, outcomes, strict=True):
            match outcome:
                case Saved.SAVED:
                    answers.append(_done(row, event))
                case Saved.BACKED_UP:
                    fault = Violation("product_id", "earlier changes still wait to be published; send it again later")
                    answers.append(_rejected(row, [fault]))
                case Saved.STALE | Saved.SKU_TAKEN:
                    overtaken.append(row)
        return answers, overtaken, waiting

    async def _holders(self, rows: Iterable[Row], stored: Mapping[str, Stored], shelf: Shelf) -> dict[str, str]:
        """Which product has each SKU of the rows and of what they replace."""
        holders = {
            sku: product.product_id
            for product in stored.values()
            if isinstance(product, Product)
            for sku in product.details.skus
        }
        unknown = dict.fromkeys(sku for row in rows for sku in row.details.skus if sku not in holders)
        if unknown:
            holders |= await shelf.holders(list(unknown))
        return holders

    def _event(self, row: Row, before: Stored | None) -> ProductCreated | ProductUpdated:
        etag, now = self.new_id(), self.clock.now()
        if isinstance(before, Product):
            return revise(before, row.details, etag=etag, now=now, by=self.by)
        return create(before, row.product_id, row.details, etag=etag, now=now, by=self.by)


class _Places:
    """The categories of a batch's rows, found by their paths in a tree that is read once. Missing ones are made for
    rows that are about to be stored alone: a category can't be deleted."""

    def __init__(self, categories: Categories, clock: Clock, new_id: NewId):
        self._categories = categories
        self._clock = clock
        self._new_id = new_id
        self._tree: Tree | None = None

    async def faults(self, row: Row) -> list[Violation]:
        path = row.category_path
        if not path or row.create_category or (await self._read()).find(path):
            return []
        return [_misplaced(f"there is no category {' > '.join(path)}")]

    async def placed(self, row: Row) -> Row:
        """The row in the category that its path names. Raises Aborted, ResourceExhausted."""
        if not (path := row.category_path):
            return row
        tree = await self._read()
        category_id = tree.find(path)
        if not category_id and row.validate_only:
            # The same for each row of it, and no category's.
            category_id = f"{NEW} {' > '.join(path)}"
        elif not category_id:
            self._tree, category_id = await category_for_path(
                path, tree, categories=self._categories, clock=self._clock, new_id=self._new_id
            )
        return replace(row, details=replace(row.details, category_id=category_id))

    async def _read(self) -> Tree:
        if self._tree is None:
            self._tree = await self._categories.tree()
        return self._tree


def _before_a_repetition(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """The rows before the first one whose product was there already, or which is only validated where those before it
    aren't or the other way round; and those from it on."""
    seen: set[str] = set()
    for position, row in enumerate(rows):
        if row.product_id in seen or row.validate_only != rows[0].validate_only:
            return rows[:position], rows[position:]
        seen.add(row.product_id)
    return rows, ()


def _taken(row: Row, holders: dict[str, str]) -> list[Violation]:
    return [
        Violation(f"variants[{position}].sku", f"{sku!r} belongs to product {holder!r}")
        for position, sku in enumerate(row.details.skus)
        if (holder := holders.get(sku, row.product_id)) != row.product_id
    ]


def _claim(row: Row, before: Stored | None, holders: dict[str, str]) -> None:
    if isinstance(before, Product):
        for sku in before.details.skus:
            holders.pop(sku, None)
    holders.update(dict.fromkeys(row.details.skus, row.product_id))


def _done(row: Row, event: ProductCreated | ProductUpdated) -> Answer:
    outcome = Outcome.CREATED if isinstance(event, ProductCreated) else Outcome.UPDATED
    return Answer(row.number, outcome, row.product_id)


def _misplaced(description: str) -> Violation:
    return Violation("category_path", description)


def _rejected(row: Row, violations: Sequence[Violation]) -> Answer:
    return Answer(row.number, Outcome.REJECTED, violations=violations)
