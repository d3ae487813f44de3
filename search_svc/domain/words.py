"""A shopper's words and a product's, brought to one form: measures, joined words, and the word that says what it is."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_WORD = re.compile(r"\w+(?:[.'’]\w+)*")
_POSSESSIVE = re.compile(r"['’][sS]\b")

# Each unit as it is kept, and how else it is written behind a number.
_UNITS = {
    "inch": r"inch(?:es)?|in\b\.?|''|[\"”″]",
    "ft": r"ft|foot|feet",
    "mm": r"mm|millimet(?:er|re)s?",
    "cm": r"cm|centimet(?:er|re)s?",
    "m": r"m|met(?:er|re)s?",
    "kg": r"kgs?|kilos?|kilograms?",
    "lb": r"lbs?|pounds?",
    "oz": r"oz|ounces?",
    "ml": r"ml|millilit(?:er|re)s?",
    "l": r"l|lit(?:er|re)s?",
    "kb": r"kb|kilobytes?",
    "mb": r"mb|megabytes?",
    "gb": r"gb|gigabytes?",
    "tb": r"tb|terabytes?",
    "mhz": r"mhz|megahertz",
    "ghz": r"ghz|gigahertz",
    "hz": r"hz|hertz",
    "w": r"w|watts?",
    "v": r"v|volts?",
    "mah": r"mah",
    "mp": r"mp|mpix|megapixels?",
}
# "in" stands close to its number: "2 in 1" is no length.
_MEASURE = re.compile(
    r"(?<![\w.,])(\d+(?:[.,]\d+)?)(?:[ \u00a0-]?(?!in\b)|-?)(?:"
    + "|".join(f"(?P<{unit}>{forms})" for unit, forms in _UNITS.items())
    + r")(?!\w)",
    re.IGNORECASE,
)

# What follows says what a thing is for, or of which make it is, not what it is.
_REST = re.compile(
    r"(?<=\w)\s*(?:[,(\[;+]|\s[-–|]\s|\b(?:for|with|without|to|from|compatible|fits|including|incl)\b|\bw/)",
    re.IGNORECASE,
)

# Words between words: nothing is found by them alone.
_LINKS = frozenset({"for", "with", "and", "the", "of", "to", "or", "from"})

_MOST_JOINED = 12

Alike = Callable[[Sequence[str]], Iterable[tuple[int, int, str]]]
"""For words as `words` gives them: the texts that mean the same as those from one place up to another."""


@dataclass(frozen=True, slots=True)
class Term:
    """One thing asked for, as any of several texts; all words of a text belong together."""

    forms: tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a text, in small letters, without plural and possessive s."""
    return [_singular(word) for word in _WORD.findall(_POSSESSIVE.sub("", text).lower())]


def measures(text: str) -> Iterator[str]:
    """Each number with its unit as one word: 15.6 inches, 15.6" and 15.6in are all "15.6inch"."""
    for found in _MEASURE.finditer(text):
        yield _measure(found)


def joined(text: str) -> Iterator[str]:
    """Each two neighbouring words as one: "usbc" for USB-C."""
    for first, second in pairwise(_WORD.findall(text)):
        yield first + second


def terms(text: str, alike: Alike = lambda asked: ()) -> list[Term]:
    """What a shopper asks for, each term once; where there is no word in it, the text itself. `alike` knows what else
    things are called."""
    written = [*_as_written(text)] or [text]
    written = [word for word in written if word.lower() not in _LINKS] or written
    if len(written) > _MOST_JOINED:
        return [Term((word,)) for word in dict.fromkeys(written)]
    forms = [[word] for word in written]
    for place, (first, second) in enumerate(pairwise(written)):
        forms[place].append(first + second)
        forms[place + 1].append(first + second)
    for begin, end, other in alike([_singular(word.lower()) for word in written]):
        for names in forms[begin:end]:
            names.append(other)
    return [Term(each) for each in dict.fromkeys(tuple(dict.fromkeys(each)) for each in forms)]


def thing(text: str, besides: Sequence[str] = ()) -> str:
    """The word that says what a thing is: of "keyboard cover, black" it is the cover, of "covers for keyboards" too. In
    English a name's last word says it, once numbers are left off and words that say what it is like, `besides`."""
    head = words(_REST.split(text, maxsplit=1)[0]) or words(text)
    while len(head) > 1 and _describes(head[-1], head[-2], besides):
        head.pop()
    return head[-1] if head else ""


def _describes(word: str, before: str, besides: Sequence[str]) -> bool:
    counted = before.replace(".", "").isdigit()
    return counted or len(word) < 3 or word in besides or any(c.isdigit() for c in word)


def _as_written(text: str) -> Iterator[str]:
    end = 0
    text = _POSSESSIVE.sub("", text)
    for found in _MEASURE.finditer(text):
        yield from _WORD.findall(text[end : found.start()])
        yield _measure(found)
        end = found.end()
    yield from _WORD.findall(text[end:])


def _measure(found: re.Match[str]) -> str:
    return f"{found[1].replace(',', '.')}{found.lastgroup}"


def _singular(word: str) -> str:
    if word.endswith("ies") and not word.endswith(("aies", "eies")) and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith("s") and not word.endswith(("us", "ss")) and len(word) > 3:
        return word[:-1]
    return word
