"""A row of a file as a row of an import, or all that is wrong with it.

    {"sku": "M-1", "name": "Mug", "price": "9.95", "currency": "EUR",                                    required
     "product_id": "…", "description": "…", "brand": "…", "product_type_id": "…", "status": "DRAFT",
     "tax_class": "…",
     "category_path": ["Kitchen", "Mugs"] or "category_id": "…", "tags": ["…"],
     "image_url": "https://…", "media": ["https://…" or {"uri": "https://…", "alt_text": "…"}],
     "attributes": {"height": 9.5, "dishwasher_safe": true, "material": "stoneware"}, "mpn": "…", "released": "…",
     "ean": ["…"], "list_price": "12.00", "variant_name": "…", "untracked": false, "options": {"colour": "blue"}}

"mpn" and "released" are attributes, and may stand among these instead. Without a product_id the SKU is the id. A
product of several variants has them in "variants", each with the fields from "sku", "price" and "currency" to
"options", "name" for "variant_name", and "media". A null is nothing; a name that an object has twice is refused. An EAN
that lost its leading zeros gets them back.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import inf, isfinite, isnan
from typing import Any

from google.type.money_pb2 import Money as MoneyMessage
from polymart.catalog.v1.catalog_service_pb2 import ImportProductsRequest
from polymart.catalog.v1.product_pb2 import (
    PRODUCT_STATUS_UNSPECIFIED,
    AttributeValue,
    MediaLink,
    Product,
    ProductStatus,
    Variant,
)

from chassis.money import Money

# A row travels in one message, and the service takes up to 16 MiB.
MAX_BYTES = 15_000_000

_OFFER = ("sku", "price", "currency", "list_price", "ean", "untracked", "options")
_FIELDS = {
    *_OFFER, "product_id", "name", "description", "brand", "product_type_id", "status", "category_path", "category_id",
    "tags", "image_url", "media", "attributes", "mpn", "mpn_or_short_name", "released", "variant_name", "variants",
    "tax_class",
}  # fmt: skip
# Fields that are attributes, and how these are called.
_ALSO_ATTRIBUTES = {"mpn": "mpn", "mpn_or_short_name": "mpn", "released": "released"}


class BadRow(ValueError):
    """All that is wrong with a row, field by field."""

    def __init__(self, faults: Sequence[str]):
        super().__init__("; ".join(faults))


def request_of(number: int, row: object) -> ImportProductsRequest:
    """The row under its number. Raises BadRow."""
    if not isinstance(row, Mapping):
        raise BadRow(["a row must be a JSON object"])
    faults: list[str] = [f"{shown(name)}: is not a known field" for name in row.keys() - _FIELDS]
    fields = _Fields(row, faults)
    several = row.get("variants") is not None
    request = ImportProductsRequest(
        row=number,
        product=Product(
            product_id=fields.text("product_id") or ("" if several else fields.text("sku")),
            name=fields.text("name", required=True),
            description=fields.text("description"),
            brand=fields.text("brand"),
            category_id=fields.text("category_id"),
            product_type_id=fields.text("product_type_id"),
            tax_class=fields.text("tax_class"),
            status=fields.status(),
            tags=fields.texts("tags"),
            media=fields.media("image_url", "media"),
            variants=fields.variants() if several else [_variant(fields, "variant_name", pictures=())],
        ),
        category_path=fields.texts("category_path"),
    )
    attributes = {**fields.mapping("attributes")}
    for field, name in _ALSO_ATTRIBUTES.items():
        if (value := row.get(field)) is not None and value != "" and attributes.setdefault(name, value) != value:
            fields.fault(field, f"{name} is given twice, and not the same")
    for name, value in attributes.items():
        fields.set_attribute(request.product, name, value)
    if not faults and (size := request.ByteSize()) > MAX_BYTES:
        faults.append(f"the row has {size:,} bytes, over {MAX_BYTES:,}")
    if faults:
        raise BadRow(faults)
    return request


class _Fields:
    """The fields of one object, read with what is wrong with them."""

    def __init__(self, row: Mapping[str, Any], faults: list[str], path: str = ""):
        self._row = row
        self._faults = faults
        self._path = path

    def text(self, name: str, *, required: bool = False) -> str:
        value = self._row.get(name)
        if value is None or value == "":
            if required:
                self.fault(name, "is missing")
            return ""
        return self._text(value, name)

    def texts(self, name: str) -> list[str]:
        value = self._row.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fault(name, f"must be a list of texts, not {_kind(value)}")
            return []
        return [self._text(item, f"{name}[{position}]") for position, item in enumerate(value)]

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._row.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fault(name, f"must be an object, not {_kind(value)}")
            return {}
        return value

    def flag(self, name: str) -> bool:
        value = self._row.get(name)
        if value is not None and not isinstance(value, bool):
            self.fault(name, f"must be true or false, not {_kind(value)}")
        return value is True

    def money(self, name: str, *, required: bool = False) -> MoneyMessage | None:
        value = self._row.get(name)
        if value is None or value == "":
            if required:
                self.fault(name, "is missing")
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            self.fault(name, f"must be a decimal number, not {_kind(value)}")
            return None
        try:
            return Money.parse(self.text("currency"), str(value)).to_proto()
        except ValueError as error:
            self.fault(name, str(error))
            return None

    def eans(self) -> list[str]:
        value = self._row.get("ean")
        codes = value if isinstance(value, list) else [] if value is None else [value]
        return [
            gtin(code if type(code) is int else self._text(code, f"ean[{position}]" if codes is value else "ean"))
            for position, code in enumerate(codes)
        ]

    def options(self) -> dict[str, str]:
        named = [(f'options["{shown(name)}"]', name, value) for name, value in self.mapping("options").items()]
        return {self._text(name, path): self._text(value, path) for path, name, value in named}

    def status(self) -> "ProductStatus.ValueType":
        text = self.text("status")
        if not text:
            return PRODUCT_STATUS_UNSPECIFIED
        try:
            return ProductStatus.Value(f"PRODUCT_STATUS_{text.upper()}")
        except ValueError:
            names = ", ".join(name.removeprefix("PRODUCT_STATUS_") for name in ProductStatus.keys()[1:])
            self.fault("status", f"must be one of {names}")
            return PRODUCT_STATUS_UNSPECIFIED

    def media(self, *names: str) -> list[MediaLink]:
        links = []
        for name in names:
            value = self._row.get(name)
            for position, item in enumerate(value if isinstance(value, list) else [] if value is None else [value]):
                path = f"{name}[{position}]" if isinstance(value, list) else name
                if isinstance(item, Mapping):
                    link = _Fields(item, self._faults, f"{self._path}{path}.")
                    links.append(MediaLink(uri=link.text("uri", required=True), alt_text=link.text("alt_text")))
                else:
                    links.append(MediaLink(uri=self._text(item, path)))
        return links

    def variants(self) -> list[Variant]:
        value = self._row["variants"]
        for name in _OFFER:
            if self._row.get(name) is not None and name != "currency":
                self.fault(name, "must not stand beside variants")
        if not isinstance(value, list):
            self.fault("variants", f"must be a list, not {_kind(value)}")
            return []
        found = []
        for position, item in enumerate(value):
            if not isinstance(item, Mapping):
                self.fault(f"variants[{position}]", f"must be an object, not {_kind(item)}")
                continue
            path = f"{self._path}variants[{position}]."
            self._faults += [
                f"{path}{shown(n)}: is not a known field" for n in item.keys() - {*_OFFER, "name", "media"}
            ]
            row = {"currency": self._row.get("currency"), **item}
            found.append(_variant(_Fields(row, self._faults, path), "name", pictures=("media",)))
        return found

    def set_attribute(self, product: Product, name: str, value: object) -> None:
        path = f'attributes["{shown(name)}"]'
        match value:
            case bool():
                product.attributes[self._text(name, path)].flag = value
            case int() | float() | Decimal():
                try:
                    number = float(value)
                except OverflowError:
                    number = inf
                if isfinite(number):
                    product.attributes[self._text(name, path)].number = number
                else:
                    self.fault(path, "is not a number" if isnan(number) else "is too large a number")
            case str():
                product.attributes[self._text(name, path)].CopyFrom(AttributeValue(text=self._text(value, path)))
            case _:
                self.fault(path, f"an attribute must be text, a number or a boolean, not {_kind(value)}")

    def fault(self, name: str, description: str) -> None:
        self._faults.append(f"{self._path}{name}: {description}")

    def _text(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            self.fault(name, f"must be text, not {_kind(value)}")
            return ""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fault(name, "is not valid UTF-8")
            return ""
        return value


def _variant(fields: _Fields, name: str, pictures: Sequence[str]) -> Variant:
    if not fields.text("currency"):
        fields.fault("currency", "is missing")
    return Variant(
        sku=fields.text("sku", required=True),
        price=fields.money("price", required=True),
        list_price=fields.money("list_price"),
        eans=fields.eans(),
        name=fields.text(name),
        untracked=fields.flag("untracked"),
        options=fields.options(),
        media=fields.media(*pictures),
    )


def gtin(code: str | int) -> str:
    """The code with the leading zeros that it loses wherever it is kept as a number: they fill it up to the next
    length that a GTIN may have, 8, 12, 13 or 14 digits (GS1 General Specifications, 3.3)."""
    text = str(code)
    length = next((length for length in (8, 12, 13, 14) if len(text) <= length), len(text))
    return text.rjust(length, "0") if text.isdecimal() else text


def shown(name: object) -> str:
    """A name as a message may hold it, whatever it is."""
    text = str(name).encode(errors="replace").decode()
    return text if len(text) <= 60 else f"{text[:40]}…"


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type(None), "null"),
    (bool, "true or false"),
    ((int, float, Decimal), "a number"),
    (str, "text"),
    (list, "a list"),
)


def _kind(value: object) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "an object")
