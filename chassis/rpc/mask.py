"""Update masks, as AIP-134 has them, of top-level fields."""

from collections.abc import Collection

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from chassis.errors import InvalidArgument, Violation


def masked_paths(mask: FieldMask, message: Message, allowed: Collection[str]) -> list[str]:
    """The fields of `message` to change, in the order of `allowed`.

    Those that the mask names; all of `allowed` for "*"; those that are set for an empty mask.
    Raises InvalidArgument with a violation for each path that is unknown, or not in `allowed`.
    """
    if not mask.paths:
        populated = {field.name for field, _ in message.ListFields()}
        return [name for name in allowed if name in populated]
    if list(mask.paths) == ["*"]:
        return list(allowed)
    violations = []
    for index, path in enumerate(mask.paths):
        if path.partition(".")[0] not in message.DESCRIPTOR.fields_by_name:
            violations.append(Violation(f"update_mask.paths[{index}]", f"{path!r} is not a field"))
        elif path not in allowed:
            violations.append(Violation(f"update_mask.paths[{index}]", f"{path!r} can't be changed"))
    if violations:
        raise InvalidArgument(violations)
    return [name for name in allowed if name in mask.paths]
