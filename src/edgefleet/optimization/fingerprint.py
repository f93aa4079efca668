"""Fingerprint of a function: what it computes with, so that its results may be kept.

Rules kept here:

- Two functions with one fingerprint compute the same: bytecode, constants, defaults, closures, the
  globals and helpers that they name, instances and arrays by content, installed modules by version.
- What can't be told exactly has none: objects whose state lies in compiled code, and functions that
  look outside (files, clocks, chance). A wrong guess would ship a model on another's figures, so
  the doubtful is refused.
- Nothing is pickled, and nothing of the function is run.
- The order of hash tables, memory addresses, file names and line numbers never count: the same
  source gives the same fingerprint in every process of one Python version.
"""

from __future__ import annotations

import builtins
import enum
import functools
import hashlib
import importlib
import logging
import sys
import types
from typing import TYPE_CHECKING, Any, TypeGuard

from edgefleet.errors import InvalidInputError
from edgefleet.optimization.content import content_of
from edgefleet.optimization.reach import (
    UnknownError,
    globals_of,
    imports_of,
    is_outside,
    names_of,
    refuse_outside,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

CURE = "use edgefleet.classification, or give evaluate a digest() that changes when it does"

_SHARED = (frozenset, range, slice, tuple)  # one or two of them, as the compiler likes
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))
_CLASS_NOISE = frozenset(
    {"__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__"}
    | {"__annotations_cache__", "__conditional_annotations__", "__dataclass_fields__"}
    | {"__dataclass_params__", "__dict__", "__doc__", "__firstlineno__", "__match_args__"}
    | {"__module__", "__orig_bases__", "__parameters__", "__qualname__", "__slots__"}
    | {"__static_attributes__", "__weakref__", "_abc_impl"}
)
_POINTER_BYTES = 8
_WRAPPERS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (types.MethodType, ("__self__", "__func__")),
    (functools.partial, ("func", "args", "keywords", "__dict__")),
    (functools._lru_cache_wrapper, ("__wrapped__",)),  # noqa: SLF001 - it has no other name
    (staticmethod, ("__func__",)),
    (classmethod, ("__func__",)),
    (property, ("fget", "fset", "fdel")),
    (types.MethodDescriptorType, ("__objclass__",)),
)
"""Callables that stand for others, and where those are."""
_REPR = "recursive_repr."  # what `dataclasses` puts its __repr__ in, from Python 3.13 on


def digest_of(function: Callable[..., Any]) -> str | None:
    """The fingerprint of a function, ``sha256:…``; None, and a line in the log, where it has none.

    Args:
        function: any callable. Its own ``digest()`` is taken at its word, if it has one.

    Raises:
        InvalidInputError: its own ``digest()`` fails, or gives no text.
    """
    walk = _Walk()
    own = None if isinstance(function, type) else getattr(function, "digest", None)
    if callable(own):
        walk.token("own", _own(own))
        return walk.digest()
    try:
        walk.value(function)
    except UnknownError as reason:
        log.info("results of evaluate() are kept for this call only: %s; %s", reason, CURE)
        return None
    except RecursionError:
        log.info("results of evaluate() are kept for this call only: too deep; %s", CURE)
        return None
    return walk.digest()


def digest_of_value(value: object) -> str | None:
    """The fingerprint of arrays, tables and plain values, by content; None where it has none."""
    walk = _Walk()
    try:
        walk.value(value)
    except (UnknownError, RecursionError):
        return None
    return walk.digest()


def _own(digest: Callable[[], object]) -> str:
    try:
        found = digest()
    except Exception as error:
        raise InvalidInputError(
            f"evaluate.digest() failed: {type(error).__name__}: {error}",
            cure="return a text that changes whenever its results may",
        ) from error
    if not isinstance(found, str) or not found:
        raise InvalidInputError(
            f"evaluate.digest() gave {found!r:.100}, not a text",
            cure="return a text that changes whenever its results may",
        )
    return found


class _Walk:
    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._seen: dict[int, tuple[int, object]] = {}
        self.token("python", sys.implementation.name, *map(str, sys.version_info[:3]))

    def digest(self) -> str:
        return "sha256:" + self._hasher.hexdigest()

    def token(self, *parts: str | bytes | memoryview) -> None:
        """Take parts in, each with its length, so that no two lists of them read alike."""
        self._hasher.update(b"%d(" % len(parts))
        for part in parts:
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            self._hasher.update(b"%d:" % len(data))
            self._hasher.update(data)

    def value(self, value: object) -> None:
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            self.token(type(value).__name__, repr(value))
            return
        if type(value) not in _SHARED and id(value) in self._seen:
            self.token("again", str(self._seen[id(value)][0]))
            return
        self._seen[id(value)] = (len(self._seen), value)  # kept, so that no other gets its id
        if not (self._container(value) or self._callable(value) or self._data(value)):
            self._instance(value)

    def _container(self, value: object) -> bool:
        kind = type(value)
        if kind in (list, tuple):
            items: Any = value
            self.token(kind.__name__, str(len(items)))
            for item in items:
                self.value(item)
        elif kind in (dict, types.MappingProxyType):
            pairs: Any = value
            self.token("dict", str(len(pairs)))
            for key, item in pairs.items():
                self.value(key)
                self.value(item)
        elif kind in (set, frozenset):
            members: Any = value
            self.token("set", *sorted(_alone(member) for member in members))
        elif kind in (slice, range):
            self.token(kind.__name__, repr(value))
        elif kind is bytearray:
            self.token("bytearray", bytes(value))  # type: ignore[call-overload] # it is one
        else:
            return False
        return True

    def _callable(self, value: object) -> bool:
        for kind, names in _WRAPPERS:
            if isinstance(value, kind):
                self.token(kind.__name__, getattr(value, "__name__", ""))
                for name in names:
                    self.value(getattr(value, name))
                return True
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.ModuleType):
            self._module(value, frozenset())
        elif isinstance(value, type):
            self._class(value)
        elif _is_bound(value):
            self.token("bound", value.__name__)
            self.value(value.__self__)
        elif callable(value) and isinstance(getattr(value, "__qualname__", None), str):
            self._library(value)
        else:
            return False
        return True

    def _function(self, function: types.FunctionType) -> None:
        if version_of(function.__module__) is not None:
            self._library(function)
            return
        self.token("function")
        self._code(function.__code__)
        self.value(function.__defaults__)
        self.value(function.__kwdefaults__)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            self.token("closure", name)
            self.value(_content(cell, name))
        own = {k: v for k, v in vars(function).items() if k != "__wrapped__"}
        self.value(own)
        names = frozenset(names_of(function.__code__))
        for name in sorted(globals_of(function.__code__)):
            self._global(name, function.__globals__, names)
        for name in sorted(imports_of(function.__code__)):
            self._imported(name, names)

    def _global(self, name: str, scope: dict[str, Any], names: frozenset[str]) -> None:
        refuse_outside(name)
        self.token("global", name)
        if name in scope:
            found = scope[name]
            if isinstance(found, types.ModuleType):
                self._module(found, names)
            else:
                self.value(found)
        elif not hasattr(builtins, name):
            self.token("missing")

    def _imported(self, name: str, names: frozenset[str]) -> None:
        try:
            module = sys.modules.get(name) or importlib.import_module(name)
        except Exception as error:
            msg = f"it imports {name}, which fails"
            raise UnknownError(msg) from error
        self.token("import", name)
        self._module(module, names)

    def _code(self, code: types.CodeType) -> None:
        for name in code.co_names:
            refuse_outside(name)
        self.token("code", code.co_code, getattr(code, "co_exceptiontable", b""))
        self.token("names", *code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self.token("counts", *map(str, counts))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant)
            else:
                self.value(constant)

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> None:
        """An installed module by its version, another by what of it is named."""
        if is_outside(module.__name__):
            msg = f"it uses the module {module.__name__}"
            raise UnknownError(msg)
        version = version_of(module.__name__)
        if version is not None:
            self.token("module", module.__name__, version)
            return
        self.token("own module")
        for name in sorted((names | {"__getattr__"}) & vars(module).keys()):
            self.token("attribute", name)
            found = vars(module)[name]
            if isinstance(found, types.ModuleType):
                self._module(found, names)
            else:
                self.value(found)

    def _class(self, kind: type) -> None:
        if version_of(kind.__module__) is not None:
            self._library(kind)
            return
        self.token("class", kind.__qualname__)
        if type(kind) is not type:
            self.value(type(kind))
        for base in kind.__bases__:
            self.value(base)
        if "__dataclass_fields__" in vars(kind):
            self._fields(kind)
        for name, item in sorted(vars(kind).items()):
            if name in _CLASS_NOISE or isinstance(item, types.MemberDescriptorType):
                continue
            if name.startswith("__") and _is_generated(item):
                continue
            self.token("member", name)
            self.value(item)

    def _fields(self, kind: type) -> None:
        """What the methods that `dataclasses` writes are made of."""
        self.token("dataclass", repr(vars(kind)["__dataclass_params__"]))
        for field in vars(kind)["__dataclass_fields__"].values():
            flags = (field.init, field.repr, field.hash, field.compare, field.kw_only)
            self.token("field", field.name, *map(str, flags))
            self.value(field.default)
            self.value(field.default_factory)

    def _library(self, value: Any) -> None:  # noqa: ANN401 - whatever a module holds
        """What an installed module holds, by its name there."""
        module, name = str(value.__module__), str(value.__qualname__)
        refuse_outside(value.__name__)
        version = version_of(module)
        if version is None or is_outside(module):
            msg = f"it uses {name} of {module}"
            raise UnknownError(msg)
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not value:
            msg = f"{name} of {module} is not found by its name"
            raise UnknownError(msg)
        self.token("library", module, name, version)

    def _data(self, value: object) -> bool:
        found = content_of(value)
        if found is None:
            return False
        self.token("data", *found.told)
        for part in found.parts:
            self.value(part)
        return True

    def _instance(self, value: object) -> None:
        """An object of a class written in Python: its class and its attributes."""
        kind = type(value)
        if isinstance(value, enum.Enum):
            self.token("enum", value.name)
            self.value(value.value)
            self.value(kind)
            return
        slots = [name for base in kind.__mro__ for name in _slots(base)]
        size = object.__basicsize__ + _POINTER_BYTES * (
            len(slots) + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
        )
        if kind.__itemsize__ or kind.__basicsize__ != size:
            msg = f"what a {kind.__module__}.{kind.__qualname__} holds cannot be told"
            raise UnknownError(msg)
        self.token("instance")
        if is_outside(kind.__module__):
            msg = f"it holds a {kind.__module__}.{kind.__qualname__}"
            raise UnknownError(msg)
        self.value(kind)
        missing = object()
        for name in slots:
            found = getattr(value, name, missing)
            if found is not missing:
                self.token("slot", name)
                self.value(found)
        self.value(getattr(value, "__dict__", None))


def _is_bound(value: Any) -> TypeGuard[types.BuiltinMethodType]:  # noqa: ANN401 - anything
    """Whether it is a compiled method of an object, as ``[].append``."""
    owner = getattr(value, "__self__", None)
    return isinstance(value, types.BuiltinMethodType) and not isinstance(
        owner, types.ModuleType | None
    )


def _is_generated(item: object) -> bool:
    """Whether `dataclasses` wrote a method."""
    if isinstance(item, types.FunctionType) and item.__code__.co_qualname.startswith(_REPR):
        item = getattr(item, "__wrapped__", item)
    return isinstance(item, types.FunctionType) and item.__code__.co_qualname.startswith(
        ("__create_fn__.", "_recursive_repr.")
    )


def _alone(value: object) -> str:
    """Fingerprint of a member of a set, whose order means nothing."""
    walk = _Walk()
    walk.value(value)
    return walk.digest()


def _content(cell: types.CellType, name: str) -> object:
    try:
        return cell.cell_contents
    except ValueError as error:
        msg = f"its variable {name} has no value yet"
        raise UnknownError(msg) from error


def _slots(kind: type) -> list[str]:
    """Names of a class's slots, as its instances' attributes."""
    named = vars(kind).get("__slots__", ())
    names = (named,) if isinstance(named, str) else tuple(named)
    prefix = "_" + kind.__name__.lstrip("_")
    return [
        prefix + name if name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in {"__dict__", "__weakref__"}
    ]
