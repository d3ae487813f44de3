"""Settings of customer_svc, read from the environment."""

from typing import Literal

from chassis.config import Address, PostgresUrl, ServiceConfig


class CustomerConfig(ServiceConfig):
    """Those of every service, and the database of customers (POLYMART_POSTGRES_URL).

    `order_address` and `notification_address` are whom to ask for their parts of an export: without one of them
    ExportCustomer is refused, and all else works.
    """

    postgres_url: PostgresUrl
    order_address: Address | Literal[""] = ""
    notification_address: Address | Literal[""] = ""
