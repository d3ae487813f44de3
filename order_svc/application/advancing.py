"""Taking orders further: by messages, by their buyers, by the clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Generic

import stamina

from chassis.clock import Clock
from chassis.errors import Aborted, NotFound
from order_svc.application.ports import Cause, Change, ChangeableOrders, Origin, Tx
from order_svc.domain import messages as m
from order_svc.domain import saga
from order_svc.domain.messages import DeadlinePassed, Message, Request
from order_svc.domain.order import Order
from order_svc.domain.saga import RETRY_AFTER, decide

METHODS: Mapping[type[Request], str] = {
    m.CancelRequested: "CancelOrder",
    m.ShipmentRequested: "CreateShipment",
    m.DeliveryReported: "MarkShipmentDelivered",
    m.ReturnRequested: "ReturnOrderLines",
    m.RetryRequested: "RetryOrder",
}


@dataclass(frozen=True, slots=True)
class Told(Generic[Cause]):
    """A message to an order, and what it came in."""

    order_id: str
    message: Message
    cause: Cause


async def advance_orders(
    told: Sequence[Told[Cause]], *, orders: ChangeableOrders[Tx, Cause], clock: Clock, tx: Tx
) -> None:
    """Decide every message on its order, one after the other, and store all that follows at once.

    Raises NotFound for a message to an order that doesn't exist, Aborted where another decision came between.
    """
    current = dict(await orders.locked({t.order_id for t in told}, tx=tx))
    now = clock.now()
    changes: list[Change[Cause]] = []
    for item in told:
        if (order := current.get(item.order_id)) is None:
            raise NotFound(f"no order {item.order_id}")
        decision = decide(order, item.message, now)
        if decision.events:
            current[item.order_id] = decision.order
            changes.append(Change(decision, item.cause))
    await orders.append(changes, tx=tx)


async def change_order(order_id: str, request: Request, *, orders: ChangeableOrders[Tx, Cause], clock: Clock) -> Order:
    """Do what somebody asks of an order, and return it; what the same request did before isn't done again.

    Raises NotFound, and what the order refuses: FailedPrecondition, InvalidArgument, AlreadyExists.
    """
    async for attempt in stamina.retry_context(on=Aborted, attempts=5, wait_initial=0.01, wait_max=0.1, timeout=None):
        with attempt:
            async with orders.transaction() as tx:
                found = await orders.locked({order_id}, tx=tx)
                if order_id not in found:
                    raise NotFound(f"no order {order_id}")
                asked = request if request.by else replace(request, by=found[order_id].buyer)
                decision = decide(found[order_id], asked, clock.now())
                if decision.events:
                    await orders.append([Change(decision, origin=Origin(asked.by, METHODS[type(asked)]))], tx=tx)
                return decision.order
    raise AssertionError("unreachable")


async def ask_again(
    *, orders: ChangeableOrders[Tx, Cause], clock: Clock, after: timedelta = RETRY_AFTER, limit: int = 200
) -> int:
    """Repeat what up to `limit` orders that stand still wait for; returns how many. Replicas share the work.

    Commands wait for their service however long that takes, but its answers are kept for days only: if they were
    missed, the order would wait for ever.
    """
    async with orders.transaction() as tx:
        now = clock.now()
        stalled = await orders.stalled(now - after, now, limit=limit, tx=tx)
        await orders.append([Change(saga.ask_again(order)) for order in stalled.values()], tx=tx)
    return len(stalled)


async def expire_orders(*, orders: ChangeableOrders[Tx, Cause], clock: Clock, limit: int = 200) -> int:
    """Reject up to `limit` pending orders whose deadline has passed; returns how many. Replicas share the work."""
    async with orders.transaction() as tx:
        now = clock.now()
        overdue = await orders.overdue(now, limit=limit, tx=tx)
        decisions = [decide(order, DeadlinePassed(), now) for order in overdue.values()]
        await orders.append([Change(decision) for decision in decisions if decision.events], tx=tx)
    return len(decisions)
