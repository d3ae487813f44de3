"""How the tools reach a stack: addresses from the environment or from the stack that runs here, channels, errors."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import grpc
import typer
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure
from grpc_status import rpc_status
from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from polymart.catalog.v1.taxonomy_service_pb2_grpc import TaxonomyServiceStub
from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceStub
from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from polymart.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from polymart.order.v1.cart_service_pb2_grpc import CartServiceStub
from polymart.order.v1.order_pb2 import Order
from polymart.order.v1.order_service_pb2 import WatchOrderRequest
from polymart.order.v1.order_service_pb2_grpc import OrderServiceStub
from polymart.order.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from polymart.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from polymart.search.v1.search_service_pb2_grpc import SearchServiceStub
from rich.console import Console
from rich.text import Text

from chassis.errors import PolymartError
from chassis.rpc.client import OPTIONS, ROUND_ROBIN
from devstack.errors import EngineError
from devstack.stack import StackInfo, default_home, load

if TYPE_CHECKING:
    from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from polymart.catalog.v1.taxonomy_service_pb2_grpc import TaxonomyServiceAsyncStub
    from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceAsyncStub
    from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceAsyncStub
    from polymart.notification.v1.notification_service_pb2_grpc import NotificationServiceAsyncStub
    from polymart.order.v1.cart_service_pb2_grpc import CartServiceAsyncStub
    from polymart.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from polymart.order.v1.shipment_service_pb2_grpc import ShipmentServiceAsyncStub
    from polymart.payment.v1.payment_service_pb2_grpc import PaymentServiceAsyncStub
    from polymart.search.v1.search_service_pb2_grpc import SearchServiceAsyncStub

P = ParamSpec("P")
T = TypeVar("T")

# All of Unicode's controls but tab and line feed.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Terminal(Console):
    """Shows text as it is: no emoji for `:smiley:`, and control characters, which could tell the terminal to do
    anything, as \\x1b."""

    def __init__(self, **options: Any):
        super().__init__(emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text), **options)


console = Terminal()
problems = Terminal(stderr=True)


# What a service that is busy or restarts answers for a while.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_LONGEST_WATCH = 10 * 365 * 86_400.0

# Over all addresses of a name, or of a target such as ipv4:127.0.0.1:5001,127.0.0.1:5002.
_OPTIONS = (("grpc.service_config", json.dumps(ROUND_ROBIN)), *OPTIONS)


class Clients:
    """One channel and stub for each service that can be asked."""

    def __init__(self, address_of: Callable[[str], str]):
        self._address_of = address_of
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, service: str) -> grpc.aio.Channel:
        if service not in self._channels:
            self._channels[service] = grpc.aio.insecure_channel(self._address_of(service), options=_OPTIONS)
        return self._channels[service]

    @property
    def catalog(self) -> "CatalogServiceAsyncStub":
        return CatalogServiceStub(self.channel("catalog_svc"))

    @property
    def taxonomy(self) -> "TaxonomyServiceAsyncStub":
        return TaxonomyServiceStub(self.channel("catalog_svc"))

    @property
    def inventory(self) -> "InventoryServiceAsyncStub":
        return InventoryServiceStub(self.channel("inventory_svc"))

    @property
    def search(self) -> "SearchServiceAsyncStub":
        return SearchServiceStub(self.channel("search_svc"))

    @property
    def orders(self) -> "OrderServiceAsyncStub":
        return OrderServiceStub(self.channel("order_svc"))

    @property
    def carts(self) -> "CartServiceAsyncStub":
        return CartServiceStub(self.channel("order_svc"))

    @property
    def shipments(self) -> "ShipmentServiceAsyncStub":
        return ShipmentServiceStub(self.channel("order_svc"))

    @property
    def payments(self) -> "PaymentServiceAsyncStub":
        return PaymentServiceStub(self.channel("payment_svc"))

    @property
    def customers(self) -> "CustomerServiceAsyncStub":
        return CustomerServiceStub(self.channel("customer_svc"))

    @property
    def notifications(self) -> "NotificationServiceAsyncStub":
        return NotificationServiceStub(self.channel("notification_svc"))

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))


def running_stack(home: Path | None = None) -> StackInfo:
    """The stack that `polymart up` started in this folder. Raises EngineError if none runs."""
    return load(home or default_home())


@asynccontextmanager
async def clients() -> AsyncIterator[Clients]:
    """Clients of the addresses in POLYMART_<SERVICE>_ADDRESS or, where unset, of the stack that runs here."""

    def address_of(service: str) -> str:
        variable = f"POLYMART_{service.removesuffix('_svc').upper()}_ADDRESS"
        return os.environ.get(variable) or running_stack().address(service)

    opened = Clients(address_of)
    try:
        yield opened
    finally:
        await opened.close()


async def follow(
    clients: Clients, order_id: str, *, after: int = 0, patience: float | None = None
) -> AsyncIterator[Order]:
    """The order as it is and after each of its changes, until it is settled; nothing up to version `after`.

    A watch that breaks off is taken up where it was, on whichever replica answers, with growing pauses while none does.
    Raises the call's error for what another try won't mend, TimeoutError after `patience` seconds without a change.
    """
    pause, deadline = _FIRST_PAUSE, _deadline(patience)
    while True:
        try:
            request = WatchOrderRequest(order_id=order_id, after_version=after)
            async for order in clients.orders.WatchOrder(request, timeout=max(0.0, deadline - monotonic())):
                pause, deadline, after = _FIRST_PAUSE, _deadline(patience), order.version
                yield order
            return
        except grpc.aio.AioRpcError as error:
            if monotonic() >= deadline:
                raise TimeoutError(f"order {order_id} hasn't changed for {patience} s") from error
            if error.code() not in PASSING:
                raise
            await asyncio.sleep(min(pause, max(0.0, deadline - monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE)


def _deadline(patience: float | None) -> float:
    return monotonic() + (_LONGEST_WATCH if patience is None else patience)


def nats_url() -> str:
    return os.environ.get("POLYMART_NATS_URL") or running_stack().nats_url


def print_data(data: object) -> None:
    """JSON on standard output, whatever its width."""
    typer.echo(json.dumps(data, indent=2))


def describe(error: grpc.aio.AioRpcError) -> str:
    """A gRPC failure in one line: code, reason, message, every violation."""
    status = rpc_status.from_call(error)  # type: ignore[no-untyped-call]
    text = f"{error.code().name}: {error.details()}"
    for detail in status.details if status else ():
        info, bad, unmet = ErrorInfo(), BadRequest(), PreconditionFailure()
        if detail.Unpack(info) and info.reason != error.code().name:
            text = f"{error.code().name} ({info.reason}): {error.details()}"
        elif detail.Unpack(bad):
            text = f"{error.code().name}: " + "; ".join(f"{v.field}: {v.description}" for v in bad.field_violations)
        elif detail.Unpack(unmet):
            text += "".join(f"; {v.subject}: {v.description}" for v in unmet.violations)
    return text


def asynchronous(function: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A coroutine as a command: what a user can do something about becomes one line and exit code 1."""

    @wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            asyncio.run(function(*args, **kwargs))
        except grpc.aio.AioRpcError as error:
            fail(describe(error))
        except (EngineError, PolymartError, ValueError) as error:
            fail(str(error))
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return command


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """`work`, which SIGINT and SIGTERM cancel, so that it tidies up behind itself; more of them change nothing.

    Raises typer.Exit with a shell's code for the signal.
    """
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def stop(number: int) -> None:
        if not received:
            problems.print("polymart: stopping", soft_wrap=True)
            task.cancel()
        received.append(number)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        problems.print("polymart: stopped")
        raise typer.Exit(128 + received[0]) from None


def fail(message: str, code: int = 1) -> None:
    problems.print(f"polymart: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


async def pages(call: Callable[..., Awaitable[Any]], request: Any, *, timeout: float) -> AsyncIterator[Any]:
    """The responses of a list call, the next asked for once the one before is used; `request` is changed."""
    while True:
        page = await call(request, timeout=timeout)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def first_of(
    call: Callable[..., Awaitable[Any]], request: Any, field: str, limit: int, *, timeout: float
) -> list[Any]:
    """The first `limit` of a list call's entries, which its responses hold in `field`."""
    found: list[Any] = []
    async for page in pages(call, request, timeout=timeout):
        found += getattr(page, field)
        if len(found) >= limit:
            break
    return found[:limit]
