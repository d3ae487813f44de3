"""Keeping the local price list."""

from collections.abc import Iterable

from order_svc.application.ports import PriceUpdates, ProductState, Tx


async def update_prices(products: Iterable[ProductState], *, prices: PriceUpdates[Tx], tx: Tx) -> None:
    """Take over what the catalog published, in any order: the newest version of each product counts."""
    newest: dict[str, ProductState] = {}
    for product in products:
        known = newest.get(product.product_id)
        if known is None or known.version < product.version:
            newest[product.product_id] = product
    await prices.replace(list(newest.values()), tx=tx)
