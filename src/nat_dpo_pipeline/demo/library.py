"""What the standard library on this machine says about itself."""

import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType, ModuleType

from nat_dpo_pipeline.demo.shelves import MODULES

_BACKTICKED = re.compile(r"`([\w.]+)(?:\(\))?`")
# The repr of a default such as `<object object at 0x7f…>` differs from run to run.
_OPAQUE_DEFAULT = re.compile(r"<[^<>]*(?:<[^<>]*>[^<>]*)*>")
_BOUND_ARGUMENT = re.compile(r"^\((?:self|cls)(?:, )?(?:/(?:, )?)?")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"(])")
_LONGEST_SUMMARY = 600


class Kind(StrEnum):
    FUNCTION = "function"
    CLASS = "class"
    METHOD = "method"


@dataclass(frozen=True, slots=True)
class Member:
    """A documented public function, class or method; `name` is what follows the module in its dotted name."""

    module: str
    name: str
    kind: Kind
    parameters: str
    paragraphs: tuple[str, ...]

    def __str__(self) -> str:
        return self.dotted

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def summary(self) -> str:
        text = self.paragraphs[0]
        return f"{text}." if text[-1].isalnum() or text[-1] in ")'\"" else text

    @property
    def first_sentence(self) -> str:
        sentence = _SENTENCE_END.split(self.summary)[0].rstrip(" :,;-")
        return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


@dataclass(frozen=True, slots=True)
class _Doc:
    signature: str
    paragraphs: tuple[str, ...]


@cache
def summary_of(module: str) -> str:
    """The module's docstring; empty when it has none or cannot be imported."""
    found = _imported(module)
    return inspect.cleandoc(found.__doc__) if found and found.__doc__ else ""


@cache
def members(module: str) -> tuple[Member, ...]:
    """The documented members of one of MODULES; none for any other name, or when this Python lacks the module."""
    found = _imported(module)
    # Looking at a deprecated member can warn, as importing can.
    with warnings.catch_warnings(action="ignore"):
        return tuple(_members(module, found)) if found else ()


def find(dotted: str) -> Member | None:
    """The member with this dotted name, such as `collections.Counter.most_common`."""
    homes = [module for module in MODULES if dotted.startswith(f"{module}.")]
    found = (_by_name(home).get(dotted) for home in sorted(homes, key=len, reverse=True))
    return next((member for member in found if member), None)


def named_in(text: str) -> list[Member]:
    """The distinct members whose dotted names stand in backticks in the text, in order."""
    names = dict.fromkeys(_BACKTICKED.findall(text))
    return [member for member in map(find, names) if member]


@cache
def _by_name(module: str) -> MappingProxyType[str, Member]:
    return MappingProxyType({member.dotted: member for member in members(module)})


@cache
def _imported(module: str) -> ModuleType | None:
    if module not in MODULES:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module(module)
    except ImportError:
        # Some builds of Python leave out modules such as `lzma`.
        return None


def _members(module: str, found: ModuleType) -> Iterator[Member]:
    for name in _public_names(module, found):
        value = getattr(found, name, None)
        if getattr(value, "__name__", None) != name:
            # An alias, such as `typing.Text` for `str`: its docs speak of something else.
            continue
        if inspect.isclass(value) and not issubclass(value, BaseException):
            yield from _member(module, name, Kind.CLASS, value)
            yield from _methods(module, name, value)
        elif inspect.isroutine(value):
            yield from _member(module, name, Kind.FUNCTION, value)


def _methods(module: str, class_name: str, value: type) -> Iterator[Member]:
    for name in vars(value):
        method = None if name.startswith("_") else getattr(value, name, None)
        if inspect.isroutine(method):
            yield from _member(module, f"{class_name}.{name}", Kind.METHOD, method)


def _public_names(module: str, found: ModuleType) -> list[str]:
    if hasattr(found, "__all__"):
        return [name for name in found.__all__ if not name.startswith("_")]
    # Without `__all__`, what a module imports from elsewhere is told apart by its home; `_bisect` is home to `bisect`.
    homes = {module, f"_{module}"}
    return [name for name in vars(found) if not name.startswith("_") and _home(getattr(found, name)) in homes]


def _home(value: object) -> object:
    return getattr(value, "__module__", None)


def _member(module: str, name: str, kind: Kind, value: object) -> Iterator[Member]:
    raw = getattr(value, "__doc__", None)
    doc = _doc(raw, name.rpartition(".")[2]) if isinstance(raw, str) else None
    if doc and doc.paragraphs and _is_readable(doc.paragraphs[0]):
        parameters = _parameters(value, kind) or doc.signature
        yield Member(module, name, kind, parameters, doc.paragraphs)


def _doc(raw: str, name: str) -> _Doc:
    """The docstring without the signature lines with which those of C functions often begin."""
    lines = inspect.cleandoc(raw).splitlines()
    signature_line = re.compile(rf"[\w.]*\b{re.escape(name)}(\(.*\))\s*(?:-+>.*|:)?")
    signature = ""
    while lines and (found := signature_line.fullmatch(lines[0])):
        signature = signature or found[1]
        lines.pop(0)
    pieces = re.split(r"\n\s*\n", "\n".join(lines).strip())
    return _Doc(signature, tuple(_joined(piece) for piece in pieces if piece.strip()))


def _joined(paragraph: str) -> str:
    lines = paragraph.splitlines()
    is_prose = not any(line[:1].isspace() or line.startswith((">>>", "- ", "* ")) for line in lines)
    return " ".join(paragraph.split()) if is_prose else paragraph.rstrip()


def _is_readable(summary: str) -> bool:
    # " = " stands in the grammar rules that are the docs of some `ast` classes.
    is_prose = summary[:1].isalpha() and not any(mark in summary for mark in ("\n", ">>>", " = "))
    return is_prose and len(summary) <= _LONGEST_SUMMARY and len(summary.split()) >= 3


def _parameters(value: object, kind: Kind) -> str:
    if not callable(value):
        return ""
    try:
        signature = str(inspect.signature(value))
    except (ValueError, TypeError):
        # Many builtins tell no signature.
        return ""
    bound = signature if kind is Kind.CLASS else _BOUND_ARGUMENT.sub("(", signature)
    return _OPAQUE_DEFAULT.sub("...", bound)
