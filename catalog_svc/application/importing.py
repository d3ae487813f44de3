"""Storing many products at once: every row is answered, and a bad one stops no other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from catalog_svc.application.ports import Saved, Shelf, Taxonomy
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
        checked = await self._checked(rows)
        answers = [_rejected(row, row.violations) for row in checked if row.violations]
        todo: Sequence[Row] = [row for row in checked if not row.violations]
        patience = ATTEMPTS
        while todo:
            round_, later = _before_a_repetition(todo)
            answered, again = await self._round(round_)
            answers += answered
            patience = ATTEMPTS if answered else patience - 1
            if not patience:
                fault = Violation("product_id", "is being changed by others all the time; send the row again later")
                answers += [_rejected(row, [fault]) for row in again]
                again, patience = [], ATTEMPTS
            todo = [*again, *later]
        return answers

    async def _checked(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with their categories and with what is wrong with these and with the attributes."""
        references = await References.of([row.details for row in rows if not row.violations], self.taxonomy)
        checked = [
            row if row.violations else replace(row, violations=references.violations(row.details)) for row in rows
        ]
        if not any(row.category_path and not row.violations for row in checked):
            return checked
        tree = await self.taxonomy.tree()
        placed = []
        for row in checked:
            row, tree = await self._placed(row, tree)
            placed.append(row)
        return placed

    async def _placed(self, row: Row, tree: Tree) -> tuple[Row, Tree]:
        """The row in the category that its path names, and the tree with it."""
        if row.violations or not (path := row.category_path):
            return row, tree
        category_id = tree.find(path)
        if not category_id:
            if not row.create_category:
                return _faulty(row, f"there is no category {' > '.join(path)}"), tree
            if row.validate_only:
                # The same for each row of it, and no category's.
                return replace(row, details=replace(row.details, category_id=f"{NEW} {' > '.join(path)}")), tree
            try:
                tree, category_id = await category_for_path(
                    path, tree, categories=self.taxonomy, clock=self.clock, new_id=self.new_id
                )
            except (Aborted, ResourceExhausted) as error:
                return _faulty(row, str(error)), tree
        return replace(row, details=replace(row.details, category_id=category_id)), tree

    async def _round(self, rows: Sequence[Row]) -> tuple[list[Answer], list[Row]]:
        """The answers to rows of different products, all validated or all stored, and the rows that others overtook."""
        shelf = self.trial if rows[0].validate_only else self.products
        stored = await shelf.get([row.product_id for row in rows])
        holders = await self._holders(rows, stored, shelf)
        answers: list[Answer] = []
        writes: list[tuple[Row, ProductCreated | ProductUpdated]] = []
        for row in rows:
            if taken := _taken(row, holders):
                answers.append(_rejected(row, taken))
                continue
            before = stored.get(row.product_id)
            event = self._event(row, before)
            if isinstance(event, ProductUpdated) and not event.changed:
                answers.append(Answer(row.number, Outcome.UNCHANGED, row.product_id))
                continue
            _claim(row, before, holders)
            writes.append((row, event))
        again: list[Row] = []
        outcomes = await shelf.save([event for _, event in writes]) if writes else ()
        for (row, event), outcome in zip(writes, outcomes, strict=True):
            match outcome:
                case Saved.SAVED:
                    answers.append(_done(row, event))
                case Saved.BACKED_UP:
                    fault = Violation("product_id", "earlier changes still wait to be published; send it again later")
                    answers.append(_rejected(row, [fault]))
                case Saved.STALE | Saved.SKU_TAKEN:
                    again.append(row)
        return answers, again

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


def _faulty(row: Row, description: str) -> Row:
    return replace(row, violations=[Violation("category_path", description)])


def _rejected(row: Row, violations: Sequence[Violation]) -> Answer:
    return Answer(row.number, Outcome.REJECTED, violations=violations)
