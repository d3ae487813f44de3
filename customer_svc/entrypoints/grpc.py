"""polymart.customer.v1.CustomerService over the use cases."""

import grpc
from polymart.customer.v1.customer_pb2 import Customer
from polymart.customer.v1.customer_service_pb2 import (
    CreateCustomerRequest,
    GetCustomerRequest,
    UpdateCustomerRequest,
)
from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceServicer

from chassis.clock import Clock
from chassis.errors import InvalidArgument
from chassis.ids import NewId
from chassis.rpc.mask import masked_paths
from chassis.rpc.validation import Validator
from customer_svc.application.customers import get_customer, register_customer, update_customer
from customer_svc.application.ports import Customers
from customer_svc.domain.customer import DETAIL_FIELDS, Details, detail_violations, id_violations
from customer_svc.protos import to_proto


class CustomerServicer(CustomerServiceServicer):
    def __init__(self, *, customers: Customers, clock: Clock, new_id: NewId):
        self._customers = customers
        self._clock = clock
        self._new_id = new_id

    async def CreateCustomer(
        self, request: CreateCustomerRequest, context: grpc.aio.ServicerContext[CreateCustomerRequest, Customer]
    ) -> Customer:
        given, validator = request.customer, Validator(request)
        details = {name: getattr(given, name) for name in DETAIL_FIELDS}
        if given.customer_id:
            validator.add(id_violations(given.customer_id, "customer.customer_id"))
        validator.add(detail_violations(details, "customer."))
        validator.done()
        return to_proto(
            await register_customer(
                given.customer_id,
                Details(**details),
                customers=self._customers,
                clock=self._clock,
                new_id=self._new_id,
            )
        )

    async def GetCustomer(
        self, request: GetCustomerRequest, context: grpc.aio.ServicerContext[GetCustomerRequest, Customer]
    ) -> Customer:
        validator = Validator(request)
        if request.customer_id:
            validator.add(id_violations(request.customer_id, "customer_id"))
        validator.done()
        return to_proto(await get_customer(request.customer_id, customers=self._customers))

    async def UpdateCustomer(
        self, request: UpdateCustomerRequest, context: grpc.aio.ServicerContext[UpdateCustomerRequest, Customer]
    ) -> Customer:
        given, validator = request.customer, Validator(request)
        validator.add(id_violations(given.customer_id, "customer.customer_id"))
        try:
            names = masked_paths(request.update_mask, given, DETAIL_FIELDS)
        except InvalidArgument as error:
            validator.add(error.violations)
            names = [name for name in DETAIL_FIELDS if name in request.update_mask.paths]
        changes = {name: getattr(given, name) for name in names}
        validator.add(detail_violations(changes, "customer."))
        validator.done()
        return to_proto(
            await update_customer(
                given.customer_id, changes, etag=given.etag, customers=self._customers, clock=self._clock
            )
        )
