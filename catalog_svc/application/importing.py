"""Storing many products at once: every row is answered, and a bad one stops no other."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from catalog_svc.application.ports import Products, Saved
from catalog_svc.application.products import ATTEMPTS
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
from chassis.errors import Violation
from chassis.ids import NewId


class Outcome(Enum):
    CREATED = auto()
    UPDATED = auto()
    UNCHANGED = auto()
    REJECTED = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """One product to import, under the caller's number, and all that is wrong with it by itself."""

    number: int
    product_id: str
    details: Details
    violations: Sequence[Violation] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a row. `product_id` is empty where it was rejected, `violations` where it wasn't."""

    row: int
    outcome: Outcome
    product_id: str = ""
    violations: Sequence[Violation] = ()


async def import_products(rows: Sequence[Row], *, products: Products, clock: Clock, new_id: NewId) -> list[Answer]:
    """Create or replace the products of `rows`, as if one after the other; the answers come in any order.

    A row is rejected for what is wrong with it, and for a SKU that another product has or an earlier row took.
    Raises errors.Unavailable where the store can't be reached; the rows may then be stored or not, and can be sent
    again.
    """
    answers = [_rejected(row, row.violations) for row in rows if row.violations]
    todo: Sequence[Row] = [row for row in rows if not row.violations]
    patience = ATTEMPTS
    while todo:
        round_, later = _before_a_repetition(todo)
        answered, again = await _import_round(round_, products, clock, new_id)
        answers += answered
        patience = ATTEMPTS if answered else patience - 1
        if not patience:
            fault = Violation("product_id", "is being changed by others all the time; send the row again later")
            answers += [_rejected(row, [fault]) for row in again]
            again, patience = [], ATTEMPTS
        todo = [*again, *later]
    return answers


async def _import_round(
    rows: Sequence[Row], products: Products, clock: Clock, new_id: NewId
) -> tuple[list[Answer], list[Row]]:
    """The answers to rows of different products, and the rows that others overtook."""
    stored = await products.get([row.product_id for row in rows])
    holders = {
        sku: product.product_id
        for product in stored.values()
        if isinstance(product, Product)
        for sku in product.details.skus
    }
    unknown = dict.fromkeys(sku for row in rows for sku in row.details.skus if sku not in holders)
    if unknown:
        holders |= await products.holders(list(unknown))
    answers: list[Answer] = []
    writes: list[tuple[Row, ProductCreated | ProductUpdated]] = []
    for row in rows:
        if taken := _taken(row, holders):
            answers.append(_rejected(row, taken))
            continue
        before = stored.get(row.product_id)
        if isinstance(before, Product) and before.details == row.details:
            answers.append(Answer(row.number, Outcome.UNCHANGED, row.product_id))
            continue
        _claim(row, before, holders)
        if isinstance(before, Product):
            writes.append((row, revise(before, row.details, etag=new_id(), now=clock.now())))
        else:
            writes.append((row, create(before, row.product_id, row.details, etag=new_id(), now=clock.now())))
    again: list[Row] = []
    outcomes = await products.save([event for _, event in writes]) if writes else ()
    for (row, event), outcome in zip(writes, outcomes, strict=True):
        match outcome:
            case Saved.SAVED:
                done = Outcome.CREATED if isinstance(event, ProductCreated) else Outcome.UPDATED
                answers.append(Answer(row.number, done, row.product_id))
            case Saved.BACKED_UP:
                fault = Violation("product_id", "earlier changes still wait to be published; send it again later")
                answers.append(_rejected(row, [fault]))
            case Saved.STALE | Saved.SKU_TAKEN:
                again.append(row)
    return answers, again


def _before_a_repetition(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """The rows before the first one whose product was there already, and those from it on."""
    seen: set[str] = set()
    for position, row in enumerate(rows):
        if row.product_id in seen:
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


def _rejected(row: Row, violations: Sequence[Violation]) -> Answer:
    return Answer(row.number, Outcome.REJECTED, violations=violations)
