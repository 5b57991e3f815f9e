"""Whether a value from a command line or from JSON is of the type that a field or argument has."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

INT32 = 2**31


def is_a(value: Any, kind: Any) -> bool:
    """Whether a JSON value can be one of a type: a whole number too where the type is float.

    Types that JSON has no values of are not judged.

    Examples:
      >>> is_a(3, float), is_a(2.5, int), is_a([16, 8], Sequence[int]), is_a("16", int | None)
      (True, False, True, False)
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(is_a(value, option) for option in arguments)
    if origin in (tuple, list, Sequence):
        element = arguments[0] if arguments else Any
        return isinstance(value, list | tuple) and all(is_a(one, element) for one in value)
    if kind in (None, NoneType):
        return value is None
    if kind not in (bool, int, float, str):
        return True
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int):  # what an int32 holds
        return kind in (int, float) and abs(value) < INT32
    return isinstance(value, kind)


def name_of(kind: Any) -> str:
    """A type as people are told of it.

    Examples:
      >>> name_of(int), name_of(Sequence[int]), name_of(Literal["a", "b"] | None)
      ('int', 'a list of int, such as [8,8]', "'a' or 'b' or null")
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(name_of, arguments))
    if origin in (tuple, list, Sequence):
        element = name_of(arguments[0]) if arguments else "values"
        return f"a list of {element}" + ", such as [8,8]" * (element == "int")
    if kind in (None, NoneType):
        return "null"
    return getattr(kind, "__name__", str(kind).replace("typing.", ""))
