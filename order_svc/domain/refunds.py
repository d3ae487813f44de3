"""What goes back for a part of an order."""

from collections.abc import Iterable

from chassis.money import Money
from order_svc.domain.fulfilment import Units, total
from order_svc.domain.order import Order
from order_svc.domain.totals import share


def refund_of(order: Order, units: Iterable[Units]) -> Money:
    """What these units cost, of those that the customer still has to get or to keep.

    A line's n-th unit gone brings what n units of its gross are, less what those before brought: so a line that is gone
    whole brought its gross, whatever the parts. What the order cost beside its lines goes back with
    the last unit. Never more than is left of the order's total.
    """
    gone, more = order.counts().gone, total(units)
    nanos = sum(
        share(order.lines[index].gross, quantity, order.lines[index].quantity, gone[index]).nanos
        for index, quantity in more.items()
    )
    if all(gone[index] + more[index] == line.quantity for index, line in enumerate(order.lines)):
        nanos += order.total.nanos - sum(line.gross.nanos for line in order.lines)
    return Money(order.total.currency, max(0, min(nanos, order.unclaimed())))
