"""What the engine knows of each kind of document: analysis and mappings."""

from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 3
"""Raised with every change below that isn't only a new field."""

PRODUCTS = "products"
PARTS = "product-parts"
CATEGORIES = "product-categories"
REBUILD = "product-rebuild"

_KEYWORD = {"type": "keyword"}
_STORED_ONLY = {"type": "object", "enabled": False}
_WORDS = {"type": "text", "analyzer": "words"}

ANALYSIS = {
    # The stemmer named possessive_english does the same, but osmem makes it match everything.
    "char_filter": {"possessive": {"type": "pattern_replace", "pattern": "['’][sS]\\b", "replacement": ""}},
    "filter": {"plural": {"type": "stemmer", "language": "minimal_english"}},
    "normalizer": {"code": {"type": "custom", "filter": ["lowercase"]}},
    "analyzer": {
        "words": {
            "type": "custom",
            "char_filter": ["possessive"],
            "tokenizer": "standard",
            "filter": ["lowercase", "asciifolding", "plural"],
        },
        # No character filter: osmem puts highlights at offsets in the filtered text.
        "shown": {
            "type": "custom",
            "tokenizer": "standard",
            "filter": ["lowercase", "asciifolding", "plural"],
        },
    },
}

MAPPINGS: Mapping[str, Mapping[str, Any]] = {
    PRODUCTS: {
        "product_id": _KEYWORD,
        "version": {"type": "long"},
        "deleted": {"type": "boolean"},
        "shown": {"type": "boolean"},
        "name": {**_WORDS, "fields": {"shown": {"type": "text", "analyzer": "shown"}}},
        "brand": {**_KEYWORD, "fields": {"words": _WORDS}},
        "category_id": _KEYWORD,
        "category_version": {"type": "long"},
        "categories": _KEYWORD,
        # The name with its joined words and measures.
        "title": _WORDS,
        "things": _WORDS,
        "description": _WORDS,
        "values": _WORDS,
        "text": _WORDS,
        "codes": {**_KEYWORD, "normalizer": "code"},
        # Name and value as one term: a nested document each would make indexing three times and filters twenty times
        # as dear, a field for each name would break the limit of fields.
        "attributes": _KEYWORD,
        "in_stock": {"type": "boolean"},
        "popularity": {"type": "float"},
        "prices": _KEYWORD,
        "price_from": _KEYWORD,
        "rest": _STORED_ONLY,
    },
    PARTS: {"version": {"type": "long"}, "level": {"type": "byte"}, "product_ids": _KEYWORD},
    CATEGORIES: {"version": {"type": "long"}, "path": _KEYWORD},
    REBUILD: {
        "covers": _KEYWORD,
        "holder": _KEYWORD,
        "until": {"type": "double"},
        "complete": {"type": "boolean"},
    },
}
