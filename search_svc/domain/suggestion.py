"""What may be meant by what was typed so far, and what was searched for."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

_WORD = re.compile(r"\w+")
# What might say who somebody is: an e-mail address; seven digits or more, as phone numbers and cards have.
_PERSONAL = re.compile(r"\S@\S|(?:\d[\s().+/_-]*){7}")
_LONGEST = 100


class CompletionKind(Enum):
    PRODUCT = "product"
    BRAND = "brand"
    CATEGORY = "category"
    SEARCH = "search"


@dataclass(frozen=True, slots=True)
class Completion:
    """`product_id` is a product's."""

    text: str
    kind: CompletionKind
    product_id: str = ""


@dataclass(frozen=True, slots=True)
class SearchedText:
    """How often a text was searched for, and how often nothing was found by it as it was typed."""

    text: str
    searches: int
    without_hits: int


def words(text: str) -> list[str]:
    """Lower-case words without accents."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return _WORD.findall(plain.casefold())


def begun_by(typed: Sequence[str], found: Sequence[str]) -> bool:
    """Does each of the `words` typed begin one of those found?"""
    return all(any(word.startswith(beginning) for word in found) for beginning in typed)


def kept(text: str) -> str:
    """`text` as the log keeps it: in lower case, with single spaces. Empty for what it doesn't keep: what is long, or
    looks as if it said who somebody is."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    fit = len(plain) <= _LONGEST and plain.isprintable() and not _PERSONAL.search(plain)
    return plain if fit and _WORD.search(plain) else ""


def merged(
    popular: Iterable[str], brands: Iterable[str], categories: Iterable[str], products: Sequence[Completion], size: int
) -> list[Completion]:
    """A few of each kind, then products; no text twice."""
    kinds = (
        [Completion(text, CompletionKind.SEARCH) for text in popular],
        [Completion(text, CompletionKind.BRAND) for text in brands],
        [Completion(text, CompletionKind.CATEGORY) for text in categories],
        products,
    )
    found: dict[str, Completion] = {}
    for completions in kinds:
        for completion in completions:
            found.setdefault(completion.text.casefold(), completion)
    return list(found.values())[:size]
