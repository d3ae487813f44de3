"""polymart.customer.v1.CustomerService over the use cases."""

import secrets
from collections.abc import AsyncIterator, Iterator

import grpc
from google.protobuf.empty_pb2 import Empty
from polymart.customer.v1 import customer_service_pb2 as pb
from polymart.customer.v1.customer_pb2 import Customer, PersonalData
from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceServicer
from polymart.order.v1.order_pb2 import Order

from chassis.clock import Clock
from chassis.errors import InvalidArgument, Violation
from chassis.ids import NewId
from chassis.rpc.mask import masked_paths
from chassis.rpc.validation import Validator
from customer_svc.application.customers import (
    erase_customer,
    export_customer,
    get_customer,
    open_personal_data,
    register_customer,
    update_customer,
)
from customer_svc.application.ports import Customers, OtherRecords
from customer_svc.application.verifying import request_verification, verify_email
from customer_svc.domain.customer import Customer as DomainCustomer
from customer_svc.domain.customer import Details, detail_violations, id_violations
from customer_svc.protos import CHANNELS, DETAILS, MUTABLE_KINDS, details_from_proto, to_proto

Context = grpc.aio.ServicerContext[object, object]

_CODE_BYTES = 15


class CustomerServicer(CustomerServiceServicer):
    def __init__(self, *, customers: Customers, others: OtherRecords, clock: Clock, new_id: NewId):
        self._customers = customers
        self._others = others
        self._clock = clock
        self._new_id = new_id

    async def CreateCustomer(self, request: pb.CreateCustomerRequest, context: Context) -> Customer:
        given, validator = request.customer, Validator(request)
        details = details_from_proto(given)
        if given.customer_id:
            validator.add(id_violations(given.customer_id, "customer.customer_id"))
        validator.add(detail_violations(details, "customer."))
        validator.add(_muted_violations(given))
        validator.done()
        customer = await register_customer(
            given.customer_id,
            Details(**details),
            customers=self._customers,
            clock=self._clock,
            new_id=self._new_id,
        )
        return to_proto(customer)

    async def GetCustomer(self, request: pb.GetCustomerRequest, context: Context) -> Customer:
        _checked(request).done()
        return to_proto(await get_customer(request.customer_id, customers=self._customers))

    async def UpdateCustomer(self, request: pb.UpdateCustomerRequest, context: Context) -> Customer:
        given, validator = request.customer, Validator(request)
        validator.add(id_violations(given.customer_id, "customer.customer_id"))
        try:
            names = masked_paths(request.update_mask, given, tuple(DETAILS))
        except InvalidArgument as error:
            validator.add(error.violations)
            names = [name for name in DETAILS if name in request.update_mask.paths]
        details = details_from_proto(given)
        changes = {DETAILS[name]: details[DETAILS[name]] for name in names}
        validator.add(detail_violations(changes, "customer."))
        if "muted" in changes:
            validator.add(_muted_violations(given))
        validator.done()
        customer = await update_customer(
            given.customer_id, changes, etag=given.etag, customers=self._customers, clock=self._clock
        )
        return to_proto(customer)

    async def RequestEmailVerification(self, request: pb.RequestEmailVerificationRequest, context: Context) -> Empty:
        _checked(request).done()
        await request_verification(
            request.customer_id,
            customers=self._customers,
            clock=self._clock,
            new_id=self._new_id,
            new_code=lambda: secrets.token_urlsafe(_CODE_BYTES),
        )
        return Empty()

    async def VerifyEmail(self, request: pb.VerifyEmailRequest, context: Context) -> Customer:
        _checked(request).done()
        # People copy a code with the spaces around it.
        code = request.code.strip()
        return to_proto(await verify_email(request.customer_id, code, customers=self._customers, clock=self._clock))

    async def ExportCustomer(
        self, request: pb.ExportCustomerRequest, context: Context
    ) -> AsyncIterator[pb.ExportCustomerResponse]:
        _checked(request).done()
        async for part in export_customer(request.customer_id, customers=self._customers, others=self._others):
            if isinstance(part, DomainCustomer):
                yield pb.ExportCustomerResponse(customer=to_proto(part))
            elif isinstance(part, Order):
                yield pb.ExportCustomerResponse(order=part)
            else:
                yield pb.ExportCustomerResponse(notification=part)

    async def EraseCustomer(self, request: pb.EraseCustomerRequest, context: Context) -> Empty:
        _checked(request).done()
        await erase_customer(request.customer_id, customers=self._customers, clock=self._clock)
        return Empty()

    async def OpenPersonalData(self, request: pb.OpenPersonalDataRequest, context: Context) -> PersonalData:
        _checked(request).done()
        return await open_personal_data(request.customer_id, request.personal_data, customers=self._customers)


_OfCustomer = (
    pb.GetCustomerRequest
    | pb.RequestEmailVerificationRequest
    | pb.VerifyEmailRequest
    | pb.ExportCustomerRequest
    | pb.EraseCustomerRequest
    | pb.OpenPersonalDataRequest
)


def _checked(request: _OfCustomer) -> Validator:
    validator = Validator(request)
    if request.customer_id:
        validator.add(id_violations(request.customer_id, "customer_id"))
    return validator


def _muted_violations(customer: Customer) -> Iterator[Violation]:
    known: set[tuple[int, int]] = set()
    for index, muted in enumerate(customer.muted_notifications):
        path = f"customer.muted_notifications[{index}]"
        if muted.channel and muted.channel not in CHANNELS:
            yield Violation(f"{path}.channel", "isn't a channel")
        if muted.kind and muted.kind not in MUTABLE_KINDS:
            yield Violation(f"{path}.kind", "isn't a kind that a customer is told unasked")
        if (muted.channel, muted.kind) in known:
            yield Violation(path, "stands there twice")
        known.add((muted.channel, muted.kind))
