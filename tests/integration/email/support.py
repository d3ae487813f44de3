"""The three services and a mail server in one process."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import asyncpg
from aiosmtpd.smtp import SMTP, Session
from aiosmtpd.smtp import Envelope as MailEnvelope
from polymart.customer.v1.customer_pb2 import Customer
from polymart.customer.v1.customer_service_pb2 import CreateCustomerRequest, UpdateCustomerRequest
from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceStub
from polymart.notification.v1.notification_pb2 import Notification, NotificationStatus
from polymart.notification.v1.notification_service_pb2 import ListNotificationsRequest, RetryNotificationRequest
from polymart.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from polymart.order.v1.events_pb2 import OrderConfirmed
from polymart.order.v1.order_pb2 import OrderLine

import customer_svc.bootstrap
import email_svc.bootstrap
import notification_svc.bootstrap
from chassis.config import load
from chassis.ids import uuid7
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.money import Money
from chassis.rpc.client import RpcClient
from chassis.service import RunningService, Worker, start
from chassis.telemetry import span
from customer_svc.config import CustomerConfig
from email_svc.adapters.nats_deliveries import ensure_bucket
from email_svc.config import EmailConfig
from email_svc.domain.delivery import Timing
from notification_svc.config import NotificationConfig
from tests.conftest import free_port, until
from tests.consumers import in_hand

TIMING = Timing(
    claim=timedelta(seconds=5),
    attempt=timedelta(seconds=4.9),
    delays=tuple(timedelta(seconds=s) for s in (0.05, 0.1, 0.2)),
)


MERCHANT = "buyer@polymart.example"


class MailServer:
    """An SMTP server on a port of its own. `answers` by recipient are used up one by one, then it takes all;
    `held`, when set, keeps it from answering after it has taken a mail."""

    def __init__(self) -> None:
        self.port = free_port()
        self.mails: list[EmailMessage] = []
        self.answers: dict[str, list[str]] = {}
        self.held: asyncio.Event | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.BaseTransport] = set()

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._session, "127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for transport in self._connections:
            transport.close()
        self._connections.clear()

    def _session(self) -> SMTP:
        connections = self._connections

        class Recorded(SMTP):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                connections.add(transport)
                super().connection_made(transport)

        return Recorded(self, hostname="sink", loop=asyncio.get_running_loop())

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: MailEnvelope, address: str, options: list[str]) -> str:
        if answers := self.answers.get(address):
            return answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: MailEnvelope) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.SMTP)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        if self.held is not None:
            await self.held.wait()
        return "250 OK"

    def to(self, customer_id: str) -> list[EmailMessage]:
        return [mail for mail in self.mails if address(customer_id) in mail["To"]]


def address(customer_id: str) -> str:
    return f"{customer_id}@example.org"


class Mortal:
    """A worker that can die at whatever it is doing."""

    def __init__(self, worker: Worker):
        self.name = worker.name
        self._worker = worker
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self._task = asyncio.create_task(self._worker.run())
        await asyncio.wait({self._task})

    async def stop(self) -> None:
        await self._worker.stop()

    async def crash(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})


@dataclass
class Shop:
    nats: Nats
    nats_url: str
    databases: dict[str, str]
    mail: MailServer
    customer_port: int = field(default_factory=free_port)
    services: dict[str, RunningService] = field(default_factory=dict)
    workers: dict[str, "list[Mortal]"] = field(default_factory=dict)
    clients: dict[str, RpcClient[Any]] = field(default_factory=dict)

    @classmethod
    async def open(cls, nats: Nats, nats_url: str, fresh_database: Callable[[], Awaitable[str]]) -> "Shop":
        databases = {"customer": await fresh_database(), "notification": await fresh_database()}
        shop = cls(nats, nats_url, databases, MailServer())
        await shop.mail.start()
        await ensure_bucket(nats)
        await customer_svc.bootstrap.migrate(shop.config(CustomerConfig, "customer"))
        await notification_svc.bootstrap.migrate(shop.config(NotificationConfig, "notification"))
        await asyncio.gather(*(shop.start(name) for name in ("customer", "notification", "email")))
        for name, stub in (("customer", CustomerServiceStub), ("notification", NotificationServiceStub)):
            shop.clients[name] = RpcClient(shop.services[name].address, stub)
            await shop.clients[name].open()
        return shop

    def config(self, kind: Any, name: str) -> Any:
        return load(kind, self.environ(name))

    def environ(self, name: str) -> dict[str, str]:
        return {
            "POLYMART_NATS_URL": self.nats_url,
            "POLYMART_POSTGRES_URL": self.databases.get(name, ""),
            "POLYMART_CUSTOMER_ADDRESS": f"127.0.0.1:{self.customer_port}",
            "POLYMART_SMTP_ADDRESS": f"127.0.0.1:{self.mail.port}",
            "POLYMART_GRPC_ADDRESS": f"127.0.0.1:{self.customer_port if name == 'customer' else 0}",
            "POLYMART_MERCHANT_MAIL": MERCHANT,
            "POLYMART_DRAIN_SECONDS": "5",
        }

    async def start(self, name: str) -> None:
        if name == "email":
            service = email_svc.bootstrap.build(self.config(EmailConfig, name), timing=TIMING)
        elif name == "customer":
            service = customer_svc.bootstrap.build(self.config(CustomerConfig, name))
        else:
            service = notification_svc.bootstrap.build(self.config(NotificationConfig, name))
        self.workers[name] = [Mortal(worker) for worker in service.workers]
        self.services[name] = await start(replace(service, workers=self.workers[name]))
        await self.services[name].ready()

    async def stop(self, name: str) -> None:
        await self.services.pop(name).drain_and_stop()

    async def crash(self, name: str) -> None:
        """Stop a service in the middle of what it does."""
        await asyncio.gather(*(worker.crash() for worker in self.workers[name]))
        await self.stop(name)

    async def close(self) -> None:
        for client in self.clients.values():
            await client.close()
        await asyncio.gather(*(self.stop(name) for name in list(self.services)))
        await self.mail.stop()

    async def register(self, customer_id: str, email: str | None = None) -> None:
        email = address(customer_id) if email is None else email
        customer = Customer(customer_id=customer_id, display_name=customer_id.title(), email=email)
        await self.clients["customer"].stub.CreateCustomer(CreateCustomerRequest(customer=customer), timeout=5)

    async def change(self, customer_id: str, **fields: Any) -> None:
        request = UpdateCustomerRequest(customer=Customer(customer_id=customer_id, **fields))
        await self.clients["customer"].stub.UpdateCustomer(request, timeout=5)

    async def retry(self, notification_id: str) -> None:
        request = RetryNotificationRequest(notification_id=notification_id)
        await self.clients["notification"].stub.RetryNotification(request, timeout=5)

    async def confirm(self, *customer_ids: str) -> list[Envelope]:
        """An order of each customer is confirmed; its id is also that of its trace."""
        price = Money.parse("GBP", "5.10").to_proto()
        events = []
        for customer_id in customer_ids:
            line = OrderLine(sku="s1", product_name="White Hanging Heart", quantity=2, line_total=price)
            event = OrderConfirmed(order_id=uuid7(), customer_id=customer_id, lines=[line], total=price)
            with span("order", parent=f"00-{event.order_id.replace('-', '')}-00f067aa0ba902b7-01"):
                events.append(Envelope.new(event, aggregate_id=event.order_id, source="order_svc"))
        await Publisher(self.nats).send(events)
        return events

    async def notifications(self, **which: Any) -> list[Notification]:
        request = ListNotificationsRequest(page_size=500, **which)
        response = await self.clients["notification"].stub.ListNotifications(request, timeout=5)
        return list(response.notifications)

    async def come_to(self, status: str, count: int) -> list[Notification]:
        """Wait until that many notifications have this status, and give them."""
        number = NotificationStatus.Value(f"NOTIFICATION_STATUS_{status}")
        found: list[Notification] = []

        async def there() -> bool:
            found[:] = await self.notifications(status=number)
            return len(found) >= count

        await until(there)
        assert len(found) == count, Counter(n.failure for n in await self.notifications())
        return found

    async def stream(self, name: str) -> list[Envelope]:
        """What a stream holds."""
        state = (await self.nats.js.stream_info(name)).state
        envelopes = []
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await self.nats.js.get_msg(name, sequence)
            envelopes.append(Envelope.decode(message.subject or "", message.headers, message.data or b""))
        return envelopes

    async def quiet(self) -> None:
        """Wait until every consumer has had every message, and nothing waits to be published."""

        async def drained() -> bool:
            for service in ("notification_svc", "email_svc"):
                if await in_hand(self.nats, *email_svc.bootstrap.TOPOLOGY.consumers_of(service)):
                    return False
            return not any([await self.rows(name, "SELECT 1 FROM outbox") for name in self.databases])

        await until(drained)

    async def rows(self, name: str, query: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.databases[name])
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    async def digest(self) -> dict[str, str]:
        """Of every table of the services."""
        digests = {}
        for name, tables in {
            "customer": ["customers"],
            "notification": ["notifications", "recipients", "inbox"],
        }.items():
            for table in tables:
                query = f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t"  # noqa: S608
                digests[table] = (await self.rows(name, query))[0][0]
        return digests
