"""Every stream, message type, publisher and durable consumer, declared in one place.

Subjects are `evt.<context>.<aggregate>.<Type>.<aggregate id>` for events and `cmd.<context>.<Type>.<aggregate id>`
for commands. `lint()` returns what doesn't fit together; a test holds it empty.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from chassis.ids import subject_token

EVENT_RETENTION = timedelta(days=7)
DLQ_RETENTION = timedelta(days=14)
# A replay out of the oldest stored message must still meet its inbox row.
INBOX_RETENTION = EVENT_RETENTION + DLQ_RETENTION + timedelta(days=7)

COMMANDS = "CMD"
DLQ = "DLQ"

# The version of search_svc's index: a release with another one fills its own, from messages that come to it alone.
SEARCH_EDITION = 3


@dataclass(frozen=True, slots=True)
class Stream:
    """One JetStream stream. `work_queue`: a message is gone once its one consumer acked it."""

    name: str
    subjects: tuple[str, ...]
    max_age: timedelta
    work_queue: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where messages of one type travel. `aggregate` is empty for a command."""

    type: str
    context: str
    aggregate: str
    publisher: str

    @property
    def stream(self) -> str:
        return f"EVT_{self.context.upper()}" if self.aggregate else COMMANDS

    @property
    def prefix(self) -> str:
        name = self.type.rpartition(".")[2]
        if self.aggregate:
            return f"evt.{self.context}.{self.aggregate}.{name}"
        return f"cmd.{self.context}.{name}"

    def subject(self, aggregate_id: str) -> str:
        return f"{self.prefix}.{subject_token(aggregate_id)}"


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer: one owner, one stream, the full names of the types it takes.

    Of each `edition` of its owner it is another, so that releases that make something different of the same messages
    can run side by side, and each hears all of them.
    """

    service: str
    stream: str
    types: tuple[str, ...]
    edition: int = 0

    @property
    def durable(self) -> str:
        return f"{self.service}-{self.stream}" + (f"-{self.edition}" if self.edition else "")


@dataclass(frozen=True, slots=True)
class Topology:
    streams: tuple[Stream, ...]
    routes: dict[str, Route]
    consumers: tuple[Consumer, ...]

    def route(self, type_name: str) -> Route:
        """Raises KeyError for a type that nobody declared."""
        return self.routes[type_name]

    def filters(self, consumer: Consumer) -> list[str]:
        return [f"{self.routes[name].prefix}.*" for name in consumer.types]

    def consumers_of(self, service: str) -> list[Consumer]:
        return [c for c in self.consumers if c.service == service]

    def lint(self) -> list[str]:
        """What is inconsistent, a sentence each; empty when all is well."""
        faults: list[str] = []
        stream_names = {s.name for s in self.streams}
        seen: set[str] = set()
        taken: dict[str, str] = {}
        for route in self.routes.values():
            if route.stream not in stream_names:
                faults.append(f"{route.type} goes to stream {route.stream}, which isn't declared")
        for consumer in self.consumers:
            if consumer.durable in seen:
                faults.append(f"durable consumer {consumer.durable} has two owners")
            seen.add(consumer.durable)
            for name in consumer.types:
                if name not in self.routes:
                    faults.append(f"{consumer.durable} takes {name}, which nobody publishes")
                elif self.routes[name].stream != consumer.stream:
                    faults.append(f"{consumer.durable} takes {name}, which is in {self.routes[name].stream}")
                if consumer.stream == COMMANDS and name in taken:
                    faults.append(f"command {name} has two consumers, {taken[name]} and {consumer.durable}")
                if consumer.stream == COMMANDS:
                    taken[name] = consumer.durable
        commands = {r.type for r in self.routes.values() if r.stream == COMMANDS}
        faults.extend(f"command {name} has no consumer" for name in sorted(commands - taken.keys()))
        return faults


def _events(context: str, aggregate: str, publisher: str, names: str) -> Iterable[Route]:
    return (Route(f"polymart.{context}.v1.{name}", context, aggregate, publisher) for name in names.split())


def _commands(context: str, publisher: str, names: str) -> Iterable[Route]:
    return (Route(f"polymart.{context}.v1.{name}", context, "", publisher) for name in names.split())


def _consumer(service: str, stream: str, context: str, names: str, edition: int = 0) -> Consumer:
    return Consumer(service, stream, tuple(f"polymart.{context}.v1.{name}" for name in names.split()), edition)


def _stream(context: str) -> Stream:
    return Stream(f"EVT_{context.upper()}", (f"evt.{context}.>",), EVENT_RETENTION)


_STOCK_REPLIES = "StockReserved StockRejected StockCommitted StockReleased StockRestocked"
_PAYMENT_REPLIES = (
    "PaymentAuthorized PaymentDeclined PaymentCaptured PaymentCaptureFailed PaymentVoided "
    "PaymentRefunded PaymentRefundFailed"
)
_PRODUCT_EVENTS = "ProductCreated ProductUpdated ProductDeleted"
_STOCK_COMMANDS = "ReserveStock CommitStock ReleaseStock RestockStock"
_PAYMENT_COMMANDS = "AuthorizePayment CapturePayment VoidPayment RefundPayment"
_ORDER_NEWS = "OrderConfirmed OrderRejected OrderCancelled OrderShipped OrderDelivered OrderRefunded"
_CUSTOMER_NEWS = "CustomerRegistered CustomerErased EmailVerificationRequested"
_NOTIFICATION_EVENTS = "NotificationCreated NotificationRetried"
_DELIVERY_EVENTS = "NotificationSending NotificationSent NotificationMuted NotificationFailed"

TOPOLOGY = Topology(
    streams=(
        *map(_stream, ("catalog", "inventory", "order", "payment", "customer", "notification", "email")),
        # Without an age limit: a step of a business transaction waits for its service however long that takes.
        Stream(COMMANDS, ("cmd.>",), timedelta(0), work_queue=True),
        Stream(DLQ, ("dlq.>",), DLQ_RETENTION),
    ),
    routes={
        route.type: route
        for group in (
            _events("catalog", "product", "catalog_svc", _PRODUCT_EVENTS),
            _events("catalog", "category", "catalog_svc", "CategoryChanged"),
            _events("inventory", "reservation", "inventory_svc", _STOCK_REPLIES),
            _events("inventory", "stock", "inventory_svc", "StockAvailabilityChanged StockRanLow"),
            _commands("inventory", "order_svc", _STOCK_COMMANDS),
            _events("order", "order", "order_svc", f"OrderPlaced {_ORDER_NEWS} OrderSettled"),
            _events("order", "order", "order_svc", "OrderLinesCancelled OrderLinesReturned"),
            _events("payment", "payment", "payment_svc", _PAYMENT_REPLIES),
            _commands("payment", "order_svc", _PAYMENT_COMMANDS),
            _events("customer", "customer", "customer_svc", f"{_CUSTOMER_NEWS} CustomerUpdated"),
            _events("notification", "notification", "notification_svc", _NOTIFICATION_EVENTS),
            _events("email", "notification", "email_svc", _DELIVERY_EVENTS),
        )
        for route in group
    },
    consumers=(
        _consumer("inventory_svc", COMMANDS, "inventory", _STOCK_COMMANDS),
        _consumer("payment_svc", COMMANDS, "payment", _PAYMENT_COMMANDS),
        _consumer("order_svc", "EVT_INVENTORY", "inventory", _STOCK_REPLIES),
        _consumer("order_svc", "EVT_PAYMENT", "payment", _PAYMENT_REPLIES),
        _consumer("order_svc", "EVT_CATALOG", "catalog", _PRODUCT_EVENTS),
        _consumer("search_svc", "EVT_CATALOG", "catalog", f"{_PRODUCT_EVENTS} CategoryChanged", SEARCH_EDITION),
        _consumer("search_svc", "EVT_INVENTORY", "inventory", "StockAvailabilityChanged", SEARCH_EDITION),
        _consumer("search_svc", "EVT_ORDER", "order", "OrderConfirmed OrderCancelled"),
        _consumer("notification_svc", "EVT_ORDER", "order", _ORDER_NEWS),
        _consumer("notification_svc", "EVT_INVENTORY", "inventory", "StockRanLow"),
        _consumer("notification_svc", "EVT_CUSTOMER", "customer", _CUSTOMER_NEWS),
        _consumer("notification_svc", "EVT_EMAIL", "email", _DELIVERY_EVENTS),
        _consumer("email_svc", "EVT_NOTIFICATION", "notification", _NOTIFICATION_EVENTS),
    ),
)
