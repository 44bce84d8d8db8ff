"""JSON of others as what it should be: what is of another kind is as good as missing."""

from collections.abc import Mapping

from nat_dpo_pipeline.core.candidates import finite_number


def mapping(value: object) -> Mapping[str, object]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """`value` if it is an array, else an empty one."""
    return value if isinstance(value, list) else []


def first(value: object) -> object:
    """The first element of an array, else None."""
    return next(iter(items(value)), None)


def objects(value: object) -> list[Mapping[str, object]]:
    """The objects in an array, without what else is in it."""
    return [one for one in items(value) if isinstance(one, dict)]


def numbers(value: object) -> dict[str, float]:
    """The finite numbers in an object by their names, without what else is in it."""
    found = {str(name): finite_number(one) for name, one in mapping(value).items()}
    return {name: number for name, number in found.items() if number is not None}
