"""Taxes and shipping from a TOML file; docs/charges.md shows one."""

import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from chassis.config import ConfigError
from chassis.money import Money, is_currency
from order_svc.domain.totals import MILLION, Charges, Destination, ShippingRule

_VARIABLE = "POLYMART_ORDER_CHARGES_FILE"
_KNOWN = {"home": {"country", "region"}, "tax": {"country", "region", "class", "percent"}}
_KNOWN["shipping"] = {"currency", "flat", "free_from"}


def read_charges(path: str) -> Charges:
    """No charges for an empty path. Raises ConfigError with everything that is wrong with the file."""
    if not path:
        return Charges()
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{_VARIABLE}: {error}"]) from error
    problems = [f"{name}: is not known" for name in document.keys() - _KNOWN.keys()]
    rates: dict[tuple[str, str, str], int] = {}
    for where, row in _rows(document, "tax", problems):
        key = (_country(row, where, problems), str(row.get("region", "")), str(row.get("class", "")))
        if key in rates:
            problems.append(f"{where}: has the country, region and class of an earlier one")
        rates[key] = _rate(row, where, problems)
    shipping: dict[str, ShippingRule] = {}
    for where, row in _rows(document, "shipping", problems):
        currency = str(row.get("currency", ""))
        if not is_currency(currency) or currency in shipping:
            problems.append(f"{where}.currency: must be a three-letter ISO 4217 code, each once")
        flat = _amount(row, "flat", currency, where, problems)
        free_from = _amount(row, "free_from", currency, where, problems) if "free_from" in row else None
        shipping[currency] = ShippingRule(flat, free_from)
    home = None
    if isinstance(given := document.get("home", {}), Mapping) and given:
        problems += [f"home.{name}: is not known" for name in given.keys() - _KNOWN["home"]]
        home = Destination(_country(given, "home", problems), str(given.get("region", "")))
    if problems:
        raise ConfigError([f"{_VARIABLE}: {problem}" for problem in problems])
    return Charges(rates, shipping, home)


def _rows(document: Mapping[str, Any], name: str, problems: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = document.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        problems.append(f"{name}: must be written as [[{name}]]")
        return
    for number, row in enumerate(rows):
        problems += [f"{name}[{number}].{key}: is not known" for key in row.keys() - _KNOWN[name]]
        yield f"{name}[{number}]", row


def _country(row: Mapping[str, Any], where: str, problems: list[str]) -> str:
    country = str(row.get("country", ""))
    if len(country) != 2 or not country.isascii() or not country.isalpha() or not country.isupper():
        problems.append(f"{where}.country: must be two capital letters, as in ISO 3166-1")
    return country


def _rate(row: Mapping[str, Any], where: str, problems: list[str]) -> int:
    """In millionths."""
    try:
        rate = Decimal(str(row.get("percent", ""))) * MILLION / 100
        if rate == rate.to_integral_value() and 0 <= rate <= MILLION:
            return int(rate)
    except InvalidOperation:
        pass
    problems.append(f"{where}.percent: must be a number from 0 to 100 of up to four decimals")
    return 0


def _amount(row: Mapping[str, Any], name: str, currency: str, where: str, problems: list[str]) -> Money:
    try:
        amount = Money.parse(currency, str(row.get(name, "")))
        if amount.nanos >= 0 and amount.rounded() == amount and amount.nanos < 10**15:
            return amount
    except ValueError:
        pass
    problems.append(f"{where}.{name}: must be an amount below a million with no more decimals than {currency} has")
    return Money(currency, 0)
