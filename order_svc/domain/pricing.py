"""Pricing: what was asked for, at the prices of now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chassis.errors import FailedPrecondition, InvalidArgument, Violation
from chassis.money import Money
from order_svc.domain.order import Line

# What google.type.Money and a PostgreSQL bigint of nanos both hold exactly, with room for one addition.
_LARGEST = 4 * 10**18
# An order's lines travel whole in its events, and the broker takes messages of up to 1 MiB. Their numbers add less
# than 100 bytes a line.
MAX_TEXT_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """A line as ordered; `expected` is the unit price that the buyer saw, None for any."""

    sku: str
    quantity: int
    expected: Money | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A SKU as it is sold now, known from one version of its product."""

    sku: str
    product_id: str
    product_version: int
    product_name: str
    price: Money
    untracked: bool
    tax_class: str = ""


def price(wanted: Sequence[Wanted], offers: Mapping[str, Offer]) -> tuple[tuple[Line, ...], Money]:
    """The lines and the sum of their nets, before tax.

    Raises InvalidArgument with a violation for each line that can't be sold so.
    """
    violations: list[Violation] = []
    lines: list[Line] = []
    for index, want in enumerate(wanted):
        offer = offers.get(want.sku)
        if offer is None:
            violations.append(Violation(f"lines[{index}].sku", f"no product has the SKU {want.sku}"))
            continue
        if lines and offer.price.currency != lines[0].unit_price.currency:
            violations.append(
                Violation(
                    f"lines[{index}].sku",
                    f"is sold in {offer.price.currency}, the lines before in {lines[0].unit_price.currency}",
                )
            )
            continue
        exact = offer.price * want.quantity
        if exact.nanos > _LARGEST:
            violations.append(Violation(f"lines[{index}].quantity", "makes the line's total too large"))
            continue
        net = None if (rounded := exact.rounded()) == exact else rounded
        name, product_id = offer.product_name, offer.product_id
        lines.append(Line(want.sku, want.quantity, offer.price, product_id, name, offer.untracked, net))
    total = sum(line.total.nanos for line in lines)
    if not violations and total > _LARGEST:
        violations.append(Violation("lines", "make the order's total too large"))
    size = sum(len((line.sku + line.product_id + line.product_name).encode()) for line in lines)
    if not violations and size > MAX_TEXT_BYTES:
        description = f"their SKUs and product names are {size:,} bytes together, over {MAX_TEXT_BYTES:,}"
        violations.append(Violation("lines", description))
    if violations:
        raise InvalidArgument(violations)
    return tuple(lines), Money(lines[0].unit_price.currency, total)


def refuse_changes(wanted: Sequence[Wanted], lines: Sequence[Line]) -> None:
    """Raises FailedPrecondition with the price of now for each line that was expected to cost something else."""
    changed = [
        (index, want.expected, line)
        for index, (want, line) in enumerate(zip(wanted, lines, strict=True))
        if want.expected is not None and want.expected != line.unit_price
    ]
    if changed:
        raise FailedPrecondition(
            "; ".join(f"{line.sku} costs {line.unit_price} now, not {expected}" for _, expected, line in changed),
            reason="PRICE_CHANGED",
            violations=[Violation(f"lines[{index}]", str(line.unit_price)) for index, _, line in changed],
        )
