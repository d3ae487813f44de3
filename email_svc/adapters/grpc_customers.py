"""Addresses asked of CustomerService."""

from typing import TYPE_CHECKING

from polymart.customer.v1.customer_service_pb2 import GetCustomerRequest

from chassis.errors import Internal, InvalidArgument, NotFound, Unavailable
from chassis.rpc.client import RpcClient, translated
from email_svc.application.ports import Recipient

if TYPE_CHECKING:
    from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceAsyncStub


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
        return Recipient(customer.display_name, customer.email)
