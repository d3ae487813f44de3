"""Addresses asked of CustomerService."""

from typing import TYPE_CHECKING

from polymart.customer.v1.customer_service_pb2 import GetCustomerRequest, OpenPersonalDataRequest
from polymart.notification.v1.notification_pb2 import NOTIFICATION_CHANNEL_EMAIL

from chassis.errors import Internal, InvalidArgument, NotFound, Unavailable
from chassis.rpc.client import RpcClient, translated
from email_svc.application.ports import Recipient

if TYPE_CHECKING:
    from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceAsyncStub


_SERVICE = "polymart.customer.v1.CustomerService"
IDEMPOTENT = (f"{_SERVICE}/GetCustomer", f"{_SERVICE}/OpenPersonalData")


class GrpcCustomers:
    """Customers (application.ports)."""

    def __init__(self, client: "RpcClient[CustomerServiceAsyncStub]"):
        self._client = client

    async def find(self, customer_id: str) -> Recipient | None:
        try:
            with translated("customer_svc"):
                customer = await self._client.stub.GetCustomer(GetCustomerRequest(customer_id=customer_id))
        except (NotFound, InvalidArgument):  # an id that can't be one is nobody's, too
            return None
        except Internal as error:  # whatever ails it, it isn't this message
            raise Unavailable(str(error)) from error
        muted = (m.kind for m in customer.muted_notifications if m.channel == NOTIFICATION_CHANNEL_EMAIL)
        return Recipient(customer.display_name, customer.email, frozenset(muted))

    async def code(self, customer_id: str, personal_data: bytes) -> str | None:
        request = OpenPersonalDataRequest(customer_id=customer_id, personal_data=personal_data)
        try:
            with translated("customer_svc"):
                return (await self._client.stub.OpenPersonalData(request)).verification_code or None
        except (NotFound, InvalidArgument):
            return None
        except Internal as error:
            raise Unavailable(str(error)) from error
