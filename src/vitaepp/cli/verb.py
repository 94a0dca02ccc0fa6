"""What all commands have in common, and options that are settings of the recipe."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

#: Of a command's function: the settings that were given, by their names.
Changes = Annotated[Any, typer.Option(parser=str)]


class Verb(TyperCommand):
    """A command.

    Its argument `out` is the last one, or is given as `--out` anywhere. An option that is given
    twice is refused, because one of the two values would be ignored.

    Attributes:
        renamed: former spellings of options, which still work but are not shown.
        settings: options that are settings of a recipe, whose description is their help.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        arguments: list[Any] = [param for param in self.params if _is_argument(param)]
        self._out: Any = next((param for param in arguments if param.name == "out"), None)
        if self._out is not None:
            self._out.help += " Also as --out."

    def get_params(self, ctx: Any) -> list[Any]:
        """Its arguments and options; recipes are read by the commands that need them."""
        params: list[Any] = super().get_params(ctx)
        if self.settings:
            from vitaepp.recipe.recipe import describe_settings

            described = {setting.name: setting.description for setting in describe_settings()}
            for param in params:
                if param.name in self.settings:
                    param.help = described[self.settings[param.name]]
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line."""
        args = [self._as_now(word) for word in args]
        if self._out is not None and "--out" in (word.partition("=")[0] for word in args):
            args = self._out_last(ctx, args)
        self._refuse_repeated(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # Errors of usage are click's, which newer versions of Typer carry inside themselves.
            param: Any = getattr(error, "param", None)
            missing = type(error).__name__ == "MissingParameter" and param is not None
            if missing and param.name == "out":
                ctx.fail(f"Missing argument '{param.metavar}', the last one, or --out")
            raise

    def _as_now(self, word: str) -> str:
        name, equals, value = word.partition("=")
        return self.renamed.get(name, name) + equals + value

    def _out_last(self, ctx: Any, args: list[str]) -> list[str]:
        at = next(i for i, word in enumerate(args) if word.partition("=")[0] == "--out")
        _, equals, value = args[at].partition("=")
        rest = args[at + 1 :]
        if not equals:
            if not rest:
                ctx.fail("Option '--out' requires an argument.")
            value, *rest = rest
        if "--out" in (word.partition("=")[0] for word in rest):
            ctx.fail("--out is given more than once")
        return [*args[:at], *rest, value]

    def _refuse_repeated(self, ctx: Any, args: list[str]) -> None:
        try:
            given = self.make_parser(ctx).parse_args(args=list(args))[2]
        except Exception:  # the parsing that counts raises it again
            return
        for option in given:
            once = option.param_type_name == "option" and not option.multiple
            if once and not getattr(option, "is_flag", False) and given.count(option) > 1:
                ctx.fail(
                    f"{option.opts[0]} is given {given.count(option)} times; give it once, and run "
                    "the command once more for the other value"
                )


class PrepareVerb(Verb):
    """A command whose options are the settings of `prepare`, beside its own.

    The settings are read when the command runs or shows its help: other commands do without.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params = [param for param in self.params if param.name != "changes"]

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own arguments and options, then the settings."""
        from vitaepp.recipe.sections import PrepareSettings

        *own, help_option = super().get_params(ctx)
        return [*own, *setting_options(PrepareSettings), help_option]

    def invoke(self, ctx: Any) -> Any:
        """Run it; its parameter `changes` has the settings that were given."""
        own = {param.name for param in self.params}
        given = {name: ctx.params.pop(name) for name in [*ctx.params] if name not in own}
        ctx.params["changes"] = {k: v for k, v in given.items() if v not in (None, (), [])}
        return super().invoke(ctx)


def setting_options(section: Any) -> list[Any]:
    """An option for each setting of a section, with its description as help.

    What is typed reaches the section as text, which checks it as it checks all values.
    """
    from vitaepp.recipe.recipe import describe_settings

    options = []
    for setting in describe_settings(section):
        kind: Any = str | None
        names = _names(setting.kind)
        more: dict[str, Any] = {"metavar": "|".join(names)} if names else {}
        text = setting.description
        if _members(setting.kind) == [bool]:
            kind = bool | None
        elif any(get_origin(member) is dict for member in _members(setting.kind)):
            kind, more = list[str] | None, {"metavar": "NAME=VALUE"}
            text += " May be repeated."
        if names:
            more["autocompletion"] = _completing(names)
        option = typer.Option(help=text, show_default=False, rich_help_panel="Settings", **more)
        options.append(
            inspect.Parameter(
                setting.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind, option],
            )
        )

    def take(**_: Any) -> None: ...

    take.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # read by Typer
    take.__annotations__ = {option.name: option.annotation for option in options}
    made = typer.Typer(add_completion=False)
    made.command()(take)
    return list(typer.main.get_command(made).params)


def as_options(text: str, commands: Mapping[str, Any]) -> str:
    """A text of the library with its calls as commands, and its arguments as their options.

    The library names them as Python has them, in backticks: `` `pretrain(STORE, 'run')` ``, or
    `` `resume=True` ``. A word in capitals stands for what the user has.

    Args:
        text: for people.
        commands: of the command line, by their names.
    """

    def option(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        spelled = _spelled(name, commands)
        if spelled is None:
            return f"vitaepp {name}" if value is None and name in commands else match[0]
        return spelled if value in (None, "True") else f"{spelled} {value}"

    def command(match: re.Match[str]) -> str:
        try:
            call: Any = ast.parse(match[1], mode="eval").body
            words = ["vitaepp", call.func.id, *map(_word, call.args)]
            for argument in call.keywords:
                words += [_spelled(argument.arg, commands) or argument.arg, _word(argument.value)]
        except (SyntaxError, ValueError):  # of a file with a backtick in its name
            return match[0]
        return " ".join(words)

    text = re.sub(rf"`((?:{'|'.join(commands)})\([^`]*\))`", command, text)
    return re.sub(r"`(?P<name>[a-z_]+)(=(?P<value>[^`]*))?`", option, text)


def _word(argument: Any) -> str:
    """An argument of a call as a shell takes it."""
    if isinstance(argument, ast.Name):
        return argument.id
    return shlex.quote(str(ast.literal_eval(argument)))


def _spelled(name: str, commands: Mapping[str, Any]) -> str | None:
    for command in commands.values():
        for param in command.params:
            if param.name == name == "out":
                return "--out"
            if param.name == name and not _is_argument(param):
                return str(param.opts[0])
    from vitaepp.recipe.sections import PrepareSettings

    known = name in PrepareSettings.model_fields
    return f"--{name.replace('_', '-')}" if known else None


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _members(kind: Any) -> list[Any]:
    """The types that a value may be of, None left out."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Literal, tuple, dict, None):
        return [kind]
    return [m for k in get_args(kind) if k is not type(None) for m in _members(k)]


def _names(kind: Any) -> list[str]:
    """The values that a setting may have, where it has a choice of names."""
    members = _members(kind)
    if not all(get_origin(member) is Literal for member in members):
        return []
    return [str(name) for member in members for name in get_args(member)]


def _completing(names: Iterable[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete
