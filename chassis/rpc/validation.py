"""Requests checked against what their proto declares, with a violation for each bad field.

`google.api.field_behavior` REQUIRED: the field is set. A number or enum without presence counts as set when it
isn't 0, so a field whose 0 means something is declared `optional` or not required.
`google.api.field_info` format UUID4: a UUID of any version, where there is a value. It is in the request in lower case
from then on: a UUID is the same in either case, and a text isn't.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from google.api.field_behavior_pb2 import FieldBehavior, field_behavior
from google.api.field_info_pb2 import FieldInfo, field_info
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from chassis.errors import InvalidArgument, Violation
from chassis.ids import is_uuid


@dataclass(frozen=True, slots=True)
class _Rule:
    """What to check of one field."""

    name: str
    required: bool
    uuid: bool
    nested: bool
    repeated: bool
    map: bool
    presence: bool


class Validator:
    """Collects what is wrong with a request, at first what its descriptor tells.

    Nested messages are checked as well, but for those in the top-level fields of `shallow`: an update names its
    resource without having to fill it in. Of several faults of one field the first is kept.
    """

    def __init__(self, request: Message, *, shallow: Sequence[str] = ()):
        self._violations: dict[str, Violation] = {}
        self.add(_walk(request, "", frozenset(shallow)))

    def check(self, ok: bool, field: str, description: str) -> None:
        """Unless `ok`, `field` (a path such as `lines[2].sku`) is bad: `description` says what it must be."""
        if not ok and field not in self._violations:
            self._violations[field] = Violation(field, description)

    def add(self, violations: Iterable[Violation], prefix: str = "") -> None:
        """What was found elsewhere; `prefix` goes before the path of each field."""
        for violation in violations:
            self.check(False, prefix + violation.field, violation.description)

    def done(self) -> None:
        """Raises InvalidArgument with all violations, if there is one."""
        if self._violations:
            raise InvalidArgument(list(self._violations.values()))


def _walk(message: Message, prefix: str, shallow: frozenset[str] = frozenset()) -> Iterator[Violation]:
    for rule in _rules(message.DESCRIPTOR):
        path = prefix + rule.name
        if rule.presence and not message.HasField(rule.name):
            if rule.required:
                yield Violation(path, "is required")
            continue
        value = getattr(message, rule.name)
        if not rule.presence and not value:
            if rule.required:
                yield Violation(path, "is required")
            continue
        if rule.name in shallow:
            continue
        if rule.uuid and rule.repeated:
            value[:] = [item.lower() for item in value]
        elif rule.uuid:
            setattr(message, rule.name, value := value.lower())
        if rule.map:
            items = [(f'{path}["{key}"]', value[key]) for key in value]
        elif rule.repeated:
            items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        else:
            items = [(path, value)]
        for item_path, item in items:
            if rule.nested:
                yield from _walk(item, f"{item_path}.")
            elif rule.required and not item and (rule.presence or rule.repeated) and isinstance(item, str):
                yield Violation(item_path, "must not be empty")
            elif rule.uuid and not is_uuid(item):
                yield Violation(item_path, "must be a UUID")


@cache
def _rules(descriptor: Descriptor) -> tuple[_Rule, ...]:
    return tuple(rule for rule in map(_rule, descriptor.fields) if rule is not None)


def _rule(field: FieldDescriptor) -> _Rule | None:
    options = field.GetOptions()
    behaviors = options.Extensions[field_behavior]  # type: ignore[index, var-annotated]
    if FieldBehavior.OUTPUT_ONLY in behaviors:
        return None
    entry = field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None
    element = entry.fields_by_name["value"] if entry else field
    rule = _Rule(
        name=field.name,
        required=FieldBehavior.REQUIRED in behaviors and field.type != FieldDescriptor.TYPE_BOOL,
        uuid=options.Extensions[field_info].format == FieldInfo.UUID4,  # type: ignore[index]
        nested=element.message_type is not None,
        repeated=field.is_repeated and not entry,
        map=entry is not None,
        presence=field.has_presence,
    )
    return rule if rule.required or rule.uuid or rule.nested else None
