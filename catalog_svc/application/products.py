"""Reading and changing products one at a time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from catalog_svc.application.ports import Products, Saved, SoldVariant
from catalog_svc.domain.product import (
    Details,
    Product,
    ProductDeleted,
    ProductEvent,
    create,
    delete,
    identity,
    revise,
    size_violations,
)
from chassis.clock import Clock
from chassis.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Unavailable, Violation, stale_etag
from chassis.ids import NewId

# How often a write that lost to another one looks again before it gives up.
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Change:
    """New values for the `fields` of a product; with an etag, only if that is still its current one."""

    product_id: str
    details: Details
    fields: Collection[str]
    etag: str = ""


async def create_product(
    product_id: str, details: Details, *, products: Products, clock: Clock, new_id: NewId
) -> Product:
    """Store a new product; without an id it gets one. Raises AlreadyExists if its id or one of its SKUs is taken."""
    product_id = product_id or new_id()
    for _ in range(ATTEMPTS):
        before = (await products.get([product_id])).get(product_id)
        if isinstance(before, Product):
            raise AlreadyExists(f"there is a product {product_id} already", reason="PRODUCT_EXISTS")
        event = create(before, product_id, details, etag=new_id(), now=clock.now())
        if await _save(event, details.skus, products):
            return event.product
    raise _overtaken(product_id)


async def get_product(product_id: str, *, products: Products) -> Product:
    """Raises NotFound if there is no such product, or no longer."""
    stored = (await products.get([product_id])).get(product_id)
    if not isinstance(stored, Product):
        raise NotFound(f"there is no product {product_id}", reason="PRODUCT_NOT_FOUND")
    return stored


async def batch_get_products(product_ids: Sequence[str], *, products: Products) -> list[Product]:
    """Those that exist, in the order asked for, each once."""
    found = await products.get(list(dict.fromkeys(product_ids)))
    wanted = (found.get(product_id) for product_id in dict.fromkeys(product_ids))
    return [product for product in wanted if isinstance(product, Product)]


async def update_product(change: Change, *, products: Products, clock: Clock, new_id: NewId) -> Product:
    """Change a product. What changes nothing isn't a write: the product stays as it is, etag and all.

    Raises NotFound, Aborted (STALE_ETAG), AlreadyExists (SKU_TAKEN), InvalidArgument (too large as a whole).
    """
    for _ in range(ATTEMPTS):
        before = await _current(change.product_id, change.etag, products)
        details = replace(before.details, **{field: getattr(change.details, field) for field in change.fields})
        if details == before.details:
            return before
        if faults := size_violations(details):
            raise InvalidArgument([Violation(f"product.{v.field}", v.description) for v in faults])
        event = revise(before, details, etag=new_id(), now=clock.now())
        if await _save(event, details.skus, products):
            return event.product
    raise _overtaken(change.product_id)


async def delete_product(product_id: str, etag: str = "", *, products: Products) -> ProductDeleted:
    """Delete a product and free its SKUs. Raises NotFound or Aborted (STALE_ETAG)."""
    for _ in range(ATTEMPTS):
        event = delete(await _current(product_id, etag, products))
        if await _save(event, (), products):
            return event
    raise _overtaken(product_id)


async def batch_get_variants(skus: Sequence[str], *, products: Products) -> list[SoldVariant]:
    """Those that exist, in the order asked for, each once."""
    wanted = list(dict.fromkeys(skus))
    found = await products.variants(wanted)
    return [found[sku] for sku in wanted if sku in found]


async def list_products(
    after: str, page_size: int, brand: str, *, products: Products
) -> tuple[Sequence[Product], bool]:
    """A page of products with ids after `after`, ordered by id, and whether more follow."""
    found = await products.page(after, page_size + 1, brand)
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
