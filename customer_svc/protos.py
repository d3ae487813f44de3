"""Customers as polymart.customer.v1 writes them."""

from polymart.customer.v1 import customer_pb2

from customer_svc.domain.customer import Customer


def to_proto(customer: Customer) -> customer_pb2.Customer:
    message = customer_pb2.Customer(
        customer_id=customer.customer_id,
        display_name=customer.details.display_name,
        email=customer.details.email,
        country=customer.details.country,
        etag=customer.etag,
        version=customer.version,
    )
    message.create_time.FromDatetime(customer.create_time)
    message.update_time.FromDatetime(customer.update_time)
    return message
