"""What the engine knows of each kind of document: analysis and mappings."""

from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 3
"""Raised with every change below that isn't only a new field. Indices of another version belong to another release,
which goes on with them; each has consumers of its own, so chassis.messaging.topology has this number too."""

PRODUCTS = f"products-v{SCHEMA_VERSION}"
PARTS = f"product-parts-v{SCHEMA_VERSION}"
CATEGORIES = f"product-categories-v{SCHEMA_VERSION}"
REBUILD = f"product-rebuild-v{SCHEMA_VERSION}"

_KEYWORD = {"type": "keyword"}
_STORED_ONLY = {"type": "object", "enabled": False}
_WORDS = {"type": "text", "analyzer": "words"}

# The beginnings of every word, for completions: what was typed is looked up as it is.
_PREFIXES = {"type": "text", "analyzer": "prefixes", "search_analyzer": "typed"}

ANALYSIS = {
    # The stemmer named possessive_english does the same, but osmem makes it match everything.
    "char_filter": {"possessive": {"type": "pattern_replace", "pattern": "['’][sS]\\b", "replacement": ""}},
    "filter": {
        "plural": {"type": "stemmer", "language": "minimal_english"},
        "prefixes": {"type": "edge_ngram", "min_gram": 1, "max_gram": 20},
        "at_most_20": {"type": "truncate", "length": 20},
    },
    "normalizer": {
        "code": {"type": "custom", "filter": ["lowercase"]},
        "plain": {"type": "custom", "filter": ["lowercase", "asciifolding"]},
    },
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
        "prefixes": {
            "type": "custom",
            "tokenizer": "standard",
            "filter": ["lowercase", "asciifolding", "prefixes"],
        },
        "typed": {
            "type": "custom",
            "tokenizer": "standard",
            "filter": ["lowercase", "asciifolding", "at_most_20"],
        },
        "spelling": {"type": "custom", "tokenizer": "standard", "filter": ["lowercase", "asciifolding"]},
    },
}

MAPPINGS: Mapping[str, Mapping[str, Any]] = {
    PRODUCTS: {
        "product_id": _KEYWORD,
        "version": {"type": "long"},
        "deleted": {"type": "boolean"},
        "shown": {"type": "boolean"},
        "name": {
            **_WORDS,
            "fields": {
                "shown": {"type": "text", "analyzer": "shown"},
                "prefixes": _PREFIXES,
                "start": {**_KEYWORD, "normalizer": "plain"},
            },
        },
        "brand": {**_KEYWORD, "fields": {"words": _WORDS, "prefixes": _PREFIXES}},
        "category_id": _KEYWORD,
        "category_version": {"type": "long"},
        "categories": {**_KEYWORD, "fields": {"prefixes": _PREFIXES}},
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
        # What facets choose from and count by, and numbers as keywords that sort as numbers do: a nested document each
        # would be as dear for them.
        "availability": _KEYWORD,
        "category_levels": _KEYWORD,
        "numbers": _KEYWORD,
        "number_steps": _KEYWORD,
        "price_steps": _KEYWORD,
        "created": {"type": "long"},
        # The catalog's own words, as they are spelt.
        "spelling": {"type": "text", "analyzer": "spelling"},
        "rest": _STORED_ONLY,
    },
    PARTS: {"version": {"type": "long"}, "level": {"type": "byte"}, "product_ids": _KEYWORD},
    CATEGORIES: {"version": {"type": "long"}, "path": _KEYWORD},
    REBUILD: {"rebuild": _STORED_ONLY},
}
