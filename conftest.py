"""Every test run checks the shapes and types in signatures, doctests included."""

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import isclass
from types import FunctionType, SimpleNamespace
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, install_import_hook, jaxtyped

# Trainings that are compared bit for bit need as many threads each, whatever else runs here.
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

# What a hooked module is first to import is compiled anew, without its bytecode: 15 seconds in all.
for library in ("lightning", "monai", "pandas", "sklearn", "zarr"):
    import_module(library)

#: Without shapes; its errors are those with shapes, of which the code that is tested knows nothing.
plain = beartype(conf=BeartypeConf(violation_type=TypeCheckError))


def checked(thing: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """`jaxtyped` for what has shapes in its signature, and beartype alone for all else.

    `jaxtyped` binds the arguments of every call to their names, which was two fifths of the time of
    `tests/evaluation`. Nine functions of ten have no shapes.
    """
    if thing is None:
        return partial(checked, typechecker=typechecker)
    if isclass(thing) and "__init__" in vars(thing) and hasattr(thing, "__dataclass_fields__"):
        thing.__init__ = checked(thing.__init__, typechecker=typechecker)
        return thing
    if not isinstance(thing, FunctionType):
        return thing
    hints = {name: _evaluated(hint, thing) for name, hint in thing.__annotations__.items()}
    if any(_shaped(hint) for hint in hints.values()):
        return jaxtyped(thing, typechecker=typechecker)
    if "<locals>" in thing.__qualname__:  # would be compiled anew whenever it is defined
        return thing
    thing.__annotations__ = hints
    return plain(thing)


def _evaluated(hint: Any, function: FunctionType) -> Any:
    """What a text stands for; `Any` where it names what only type checkers import."""
    one = SimpleNamespace(__annotations__={"hint": hint})
    try:
        return get_type_hints(one, function.__globals__, include_extras=True)["hint"]
    except (AttributeError, NameError, TypeError):
        return Any


def _shaped(hint: Any) -> bool:
    if isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(_shaped(part) for part in get_args(hint))


jaxtyping.jaxtyped = checked  # by this name the hook puts it before every function
install_import_hook("vitaepp", "beartype.beartype")
