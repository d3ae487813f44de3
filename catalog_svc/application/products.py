"""Reading and changing products one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from catalog_svc.application.ports import Filter, Order, Position, Products, Saved, SoldVariant, Taxonomy
from catalog_svc.application.references import reference_violations
from catalog_svc.domain.edits import Edit, applied
from catalog_svc.domain.product import (
    Details,
    Product,
    ProductDeleted,
    ProductEvent,
    Request,
    Revision,
    create,
    delete,
    identity,
    revise,
)
from catalog_svc.domain.rules import size_violations, violations
from chassis.clock import Clock
from chassis.errors import (
    Aborted,
    AlreadyExists,
    InvalidArgument,
    NotFound,
    Unavailable,
    Violation,
    stale_etag,
)
from chassis.ids import NewId

# How often a write that lost to another one looks again before it gives up.
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class New:
    """A product to create; without an id it gets one. With a request, only if that wasn't met before."""

    product_id: str
    details: Details
    request: Request | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What `edits` name of a product, to be as in `details`; with an etag, only if that is still its current one."""

    product_id: str
    details: Details
    edits: Sequence[Edit]
    etag: str = ""
    by: str = ""


async def create_product(new: New, *, products: Products, taxonomy: Taxonomy, clock: Clock, new_id: NewId) -> Product:
    """Store a new product.

    Raises AlreadyExists if its id or one of its SKUs is taken or its request asked for something else before,
    InvalidArgument for a category, type or attribute that can't be, NotFound where the product that the request created
    is deleted.
    """
    product_id = new.product_id or new_id()
    for _ in range(ATTEMPTS):
        if new.request and (known := await _created_by(new.request, products)):
            return known
        try:
            if created := await _create(product_id, new, products, taxonomy, clock, new_id):
                return created
        except AlreadyExists:
            # By the same request, where it is sent twice at once.
            if new.request and (known := await _created_by(new.request, products)):
                return known
            raise
    raise _overtaken(product_id)


async def _create(
    product_id: str, new: New, products: Products, taxonomy: Taxonomy, clock: Clock, new_id: NewId
) -> Product | None:
    """None if somebody else changed the product meanwhile."""
    before = (await products.get([product_id])).get(product_id)
    if isinstance(before, Product):
        raise AlreadyExists(f"there is a product {product_id} already", reason="PRODUCT_EXISTS")
    if faults := await reference_violations(new.details, taxonomy=taxonomy):
        raise _invalid(faults)
    event = create(before, product_id, new.details, etag=new_id(), now=clock.now(), by=new.by, request=new.request)
    return event.product if await _save(event, new.details.skus, products) else None


async def _created_by(request: Request, products: Products) -> Product | None:
    known = await products.requested(request.id)
    if known is None:
        return None
    if known.fingerprint != request.fingerprint:
        raise AlreadyExists(f"request {request.id} created another product before", reason="REQUEST_ID_REUSED")
    return await get_product(known.product_id, products=products)


async def get_product(product_id: str, *, products: Products) -> Product:
    """Raises NotFound if there is no such product, or no longer."""
    stored = (await products.get([product_id])).get(product_id)
    if not isinstance(stored, Product):
        raise _unknown(product_id)
    return stored


async def batch_get_products(product_ids: Sequence[str], *, products: Products) -> list[Product]:
    """Those that exist, in the order asked for, each once."""
    found = await products.get(list(dict.fromkeys(product_ids)))
    wanted = (found.get(product_id) for product_id in dict.fromkeys(product_ids))
    return [product for product in wanted if isinstance(product, Product)]


async def update_product(
    change: Change, *, products: Products, taxonomy: Taxonomy, clock: Clock, new_id: NewId
) -> Product:
    """Change a product. What changes nothing isn't a write: the product stays as it is, etag and all.

    Raises NotFound, Aborted (STALE_ETAG), AlreadyExists (SKU_TAKEN), InvalidArgument for what the product can't be.
    """
    fields = {edit.field for edit in change.edits}
    for _ in range(ATTEMPTS):
        before = await _current(change.product_id, change.etag, products)
        try:
            details = applied(change.edits, before.details, change.details)
        except ValueError as error:
            raise InvalidArgument([Violation("update_mask", str(error))]) from error
        event = revise(before, details, etag=new_id(), now=clock.now(), by=change.by)
        if not event.changed:
            return before
        faults = [*violations(details, fields), *size_violations(details)]
        if faults := faults or await reference_violations(details, fields, taxonomy=taxonomy):
            raise _invalid(faults)
        if await _save(event, details.skus, products):
            return event.product
    raise _overtaken(change.product_id)


async def delete_product(
    product_id: str, etag: str = "", by: str = "", *, products: Products, clock: Clock
) -> ProductDeleted:
    """Delete a product and free its SKUs. Raises NotFound or Aborted (STALE_ETAG)."""
    for _ in range(ATTEMPTS):
        event = delete(await _current(product_id, etag, products), now=clock.now(), by=by)
        if await _save(event, (), products):
            return event
    raise _overtaken(product_id)


async def product_revisions(product_id: str, *, products: Products) -> Sequence[Revision]:
    """Its last changes, the newest first. Raises NotFound if there never was such a product."""
    revisions = await products.revisions(product_id)
    if revisions is None:
        raise _unknown(product_id)
    return revisions


async def batch_get_variants(skus: Sequence[str], *, products: Products) -> list[SoldVariant]:
    """Those that exist, in the order asked for, each once."""
    wanted = list(dict.fromkeys(skus))
    found = await products.variants(wanted)
    return [found[sku] for sku in wanted if sku in found]


@dataclass(frozen=True, slots=True)
class Question:
    """Which products to list. `category_id` means the products in it and below it."""

    category_id: str = ""
    which: Filter = field(default_factory=Filter)
    order: Order = Order.BY_ID


async def list_products(
    question: Question, after: Position | None, page_size: int, *, products: Products, taxonomy: Taxonomy
) -> tuple[Sequence[Product], bool]:
    """A page of products behind `after`, and whether more follow. Raises NotFound for the category."""
    which = question.which
    if question.category_id:
        tree = await taxonomy.tree()
        tree.get(question.category_id)
        which = replace(which, category_ids=tree.subtree(question.category_id))
    found = await products.page(which, question.order, after, page_size + 1)
    return found[:page_size], len(found) > page_size


async def _current(product_id: str, etag: str, products: Products) -> Product:
    product = await get_product(product_id, products=products)
    if etag and etag != product.etag:
        raise stale_etag("product", product_id)
    return product


async def _save(event: ProductEvent, skus: Sequence[str], products: Products) -> bool:
    """False if somebody else changed the product meanwhile."""
    product_id, _ = identity(event)
    (outcome,) = await products.save([event])
    match outcome:
        case Saved.SKU_TAKEN:
            holders = await products.holders(skus)
            taken = sorted(sku for sku, holder in holders.items() if holder != product_id)
            if not taken:  # freed again since
                return False
            raise AlreadyExists(
                f"{', '.join(taken)} belongs to another product", reason="SKU_TAKEN", metadata={"skus": ",".join(taken)}
            )
        case Saved.BACKED_UP:
            raise backed_up(product_id)
    return outcome is Saved.SAVED


def backed_up(product_id: str) -> Unavailable:
    return Unavailable(
        f"earlier changes of product {product_id} still wait to be published; try again later", reason="OUTBOX_FULL"
    )


def _overtaken(product_id: str) -> Aborted:
    return Aborted(f"product {product_id} is being changed by others all the time; try again later")


def _unknown(product_id: str) -> NotFound:
    return NotFound(f"there is no product {product_id}", reason="PRODUCT_NOT_FOUND")


def _invalid(faults: Sequence[Violation]) -> InvalidArgument:
    return InvalidArgument([Violation(f"product.{fault.field}", fault.description) for fault in faults])
