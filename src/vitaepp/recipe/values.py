"""Values of settings as people write them, in a recipe file or as `name=value`."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml

from vitaepp.errors import RecipeError, one_line

#: What YAML and the numbers in it may raise.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: nothing is given twice, and 010 is not 8."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [str(key.value) for key, _ in node.value]
        for at, name in enumerate(names):
            if name in names[:at]:
                line = node.value[at][0].start_mark.line + 1
                raise RecipeError(f"{name} is given twice, again in line {line}; give it once")
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if re.fullmatch("[-+]?(0[0-9_]+|.*:.*)", node.value):
            number = super().construct_yaml_int(node)
            raise RecipeError(
                f"line {node.start_mark.line + 1}: YAML reads {node.value} as {number}; write a "
                "number without leading zeros or colons, and a text in quotes"
            )
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def split_setting(setting: str) -> tuple[str, str]:
    """Name and text of `name=value`.

    Raises:
        RecipeError: it is not written so.
    """
    name, equals, text = setting.partition("=")
    if not equals:
        raise RecipeError(f"{setting}: write name=value")
    return name.strip(), text


def read_mapping(text: str, name: str) -> dict[str, Any]:
    """The settings of a recipe file.

    Args:
        text: YAML.
        name: of the file, for errors.

    Raises:
        RecipeError: not YAML, not a mapping, something that is there twice, or a number that YAML
            does not read as it looks.
    """
    try:
        values = yaml.load(text, _Loader)
    except RecipeError as error:
        raise RecipeError(f"{name}: {error}") from None
    except _NOT_YAML as error:
        raise RecipeError(f"{name}: not valid YAML: {one_line(error)}") from None
    if not isinstance(values, dict | None):
        raise RecipeError(
            f"{name}: a recipe is a mapping of settings, found {type(values).__name__}"
        )
    return values or {}


def read_text_file(path: Path) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: it is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file; a recipe is YAML") from None


def read_value(text: str, kind: Any) -> Any:
    """What somebody typed for a setting of some type.

    Raises:
        RecipeError: it is no value.

    Texts are taken as they are: YAML has its own idea of `no`, `0123` and `2020-01-01`. Quotes
    around them, and nothing at all, mean what they mean in YAML.

    >>> read_value("no", str), read_value("0123", int), read_value("1e3", float)
    ('no', 123, 1000.0)
    """
    bare = text.strip()
    if _is_text(kind) and bare[:1] not in ("", "'", '"', "["):
        return bare

    def known(value: Any) -> Any:
        if isinstance(value, list):
            return [known(v) for v in value]
        if isinstance(value, dict):
            return {k: known(v) for k, v in value.items()}
        return value if _is_text(kind) and value else _number_or_text(value)

    try:
        return known(yaml.load(bare, yaml.BaseLoader))  # it makes all scalars strings
    except _NOT_YAML as error:
        raise RecipeError(f"{text}: not a value: {one_line(error)}") from None


def _number_or_text(text: Any) -> Any:
    if text in (None, "", "~", "null", "Null", "NULL"):
        return None
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _is_text(kind: Any) -> bool:
    """Whether a setting of this type is free text, or a list of such."""
    if get_origin(kind) is Annotated:
        return _is_text(get_args(kind)[0])
    members = [k for k in get_args(kind) if k not in (type(None), ...)]
    if get_origin(kind) in (Union, types.UnionType, tuple):
        return all(_is_text(k) for k in members)
    return kind is str
