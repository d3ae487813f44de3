"""What the use cases need of the world."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from chassis.money import Money
from order_svc.domain.cart import Cart
from order_svc.domain.order import Failure, Order, Recorded, Status
from order_svc.domain.pricing import Offer
from order_svc.domain.saga import Decision

Tx = TypeVar("Tx")
Tx_contra = TypeVar("Tx_contra", contravariant=True)
Cause = TypeVar("Cause")
Cause_co = TypeVar("Cause_co", covariant=True)
Cause_contra = TypeVar("Cause_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Request:
    """What makes placing an order idempotent: the caller's id of it, within one customer, and what it said."""

    customer_id: str
    request_id: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class OrderSummary:
    """An order without its lines."""

    order_id: str
    customer_id: str
    status: Status
    settled: bool
    total: Money
    failure: Failure | None
    place_time: datetime
    update_time: datetime
    deadline: datetime
    version: int
    refunded: Money


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A stored event: `data` is the protobuf message named `type` (its full name).

    `actor` is who did it and `cause` why: the type of a message, whose id is `cause_id`, a method, or the clock. Both
    are empty where an older release didn't say.
    """

    version: int
    time: datetime
    type: str
    data: bytes
    actor: str
    cause: str
    cause_id: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which orders to list; None where it doesn't matter."""

    customer_id: str | None = None
    status: Status | None = None
    placed_from: datetime | None = None
    placed_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Who called which method, or that the clock did."""

    actor: str
    cause: str


CLOCK = Origin("order_svc", "clock")


@dataclass(frozen=True, slots=True)
class Change(Generic[Cause_co]):
    """A decision to store, and what led to it: a message, or where there is none a call or the clock."""

    decision: Decision
    cause: Cause_co | None = None
    origin: Origin = CLOCK


class PlacedOrders(Protocol):
    async def placed_by(self, request: Request) -> Order | None:
        """The order this request placed, as it is now. Raises AlreadyExists if the same id asked for something else."""
        ...

    async def add(self, request: Request, decision: Decision) -> Order:
        """Store a new order and what it asks of others, at once; or return what the same request placed meanwhile."""
        ...


class CheckedOutOrders(Protocol[Tx_contra]):
    async def add(self, request: Request, decision: Decision, *, tx: Tx_contra | None = None) -> Order:
        """As PlacedOrders.add, but the order is there once `tx` commits."""
        ...

    async def get(self, order_id: str) -> Order: ...


class Carts(Protocol[Tx]):
    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...

    async def add(self, cart: Cart) -> None: ...

    async def find(self, cart_id: str) -> Cart | None: ...

    async def locked(self, cart_id: str, *, tx: Tx) -> Cart | None:
        """The cart, kept from others until `tx` ends."""
        ...

    async def save(self, before: Cart, after: Cart, *, tx: Tx) -> None:
        """Store what differs; `before` is as `locked` gave it."""
        ...

    async def drop_expired(self, now: datetime, *, limit: int) -> int: ...


class ReadableOrders(Protocol):
    async def get(self, order_id: str) -> Order:
        """Raises NotFound."""
        ...

    async def history(self, order_id: str) -> Sequence[HistoryEntry]:
        """Raises NotFound."""
        ...

    async def page(self, which: Filter, *, before: tuple[datetime, str] | None, limit: int) -> Sequence[OrderSummary]:
        """The newest `limit` orders that come after the place time and id of another."""
        ...

    async def stuck(
        self, since: datetime, now: datetime, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Order]:
        """Orders that aren't settled and haven't moved after `since`, or are past their deadline, those that have
        waited longest first, from `after` the update time and id of another."""
        ...


class ShipmentIndex(Protocol):
    """Where shipments are: their orders know what is in them."""

    async def order_of(self, shipment_id: str) -> str:
        """Raises NotFound."""
        ...

    async def page(
        self, *, order_id: str | None, under_way: bool, before: str | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        """Order and shipment id of the newest `limit` shipments with ids below `before`."""
        ...


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Orders read from their events, in how many things the old read model differed from them, and the first of
    these, a sentence each."""

    orders: int
    difference_count: int
    differences: Sequence[str]


class ReadModel(Protocol):
    async def rebuild(self, *, swap: bool) -> Rebuilt:
        """Build it anew beside the old one, compare, and with `swap` put it in its place.

        Raises Aborted while another is under way, FailedPrecondition for an order whose events can't be read.
        """
        ...


class WatchedOrders(Protocol):
    async def versions(self, order_ids: Collection[str]) -> Mapping[str, int]: ...
    async def histories(self, order_ids: Collection[str]) -> Mapping[str, Sequence[Recorded]]: ...


class ChangeableOrders(Protocol[Tx, Cause_contra]):
    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...

    async def locked(self, order_ids: Collection[str], *, tx: Tx) -> Mapping[str, Order]:
        """These orders, kept from others until `tx` ends; those that don't exist are left out."""
        ...

    async def overdue(self, now: datetime, *, limit: int, tx: Tx) -> Mapping[str, Order]:
        """Pending orders past their deadline that nobody else is deciding, locked."""
        ...

    async def stalled(self, since: datetime, now: datetime, *, limit: int, tx: Tx) -> Mapping[str, Order]:
        """Orders that aren't settled, and neither moved nor were given out here after `since`, locked."""
        ...

    async def append(self, changes: Sequence[Change[Cause_contra]], *, tx: Tx) -> None:
        """Store events, read model and messages. Raises Aborted if an order isn't where its decision began."""
        ...


class PriceList(Protocol):
    async def offers(self, skus: Collection[str]) -> Mapping[str, Offer]:
        """Those of `skus` whose price is known here beyond doubt."""
        ...

    async def remember(self, offers: Sequence[Offer]) -> None:
        """Keep what the catalog answered, unless something newer is known."""
        ...


@dataclass(frozen=True, slots=True)
class ProductState:
    """A product at one version; `offers` is empty when it was deleted or isn't sold."""

    product_id: str
    version: int
    offers: tuple[Offer, ...]


class PriceUpdates(Protocol[Tx_contra]):
    async def replace(self, products: Sequence[ProductState], *, tx: Tx_contra) -> None:
        """Make these the products' prices, but for those known at the same or a newer version. Each product once."""
        ...


class Catalog(Protocol):
    async def offers(self, skus: Collection[str]) -> Sequence[Offer]:
        """What is sold now under these SKUs, at most 2,000. Raises Unavailable."""
        ...
