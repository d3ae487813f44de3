"""The service's settings, each read from POLYMART_<NAME>."""

from typing import Annotated

from pydantic import Field

from chassis.config import PostgresUrl, ServiceConfig


class PaymentConfig(ServiceConfig):
    """`postgres_url`: this service's own database, `provider_url`: that of the sandbox provider, each with its role."""

    postgres_url: PostgresUrl
    provider_url: PostgresUrl
    provider_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How long to wait for the provider's answer before its outcome counts as unknown."""
