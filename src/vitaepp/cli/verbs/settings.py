"""`vitaepp settings`."""

from __future__ import annotations

from typing import Annotated

import typer

from vitaepp.cli.options import AsJson
from vitaepp.cli.program import command, show


@command()
def settings(
    as_json: AsJson = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON schema of recipes, for editors.")
    ] = False,
) -> None:
    """List every setting of a recipe, its default and what it means."""
    from vitaepp.recipe.recipe import Recipe, describe_settings, shipped_recipes

    if schema:
        show("", Recipe.model_json_schema())
        return
    if as_json:
        show("", [setting.to_dict() for setting in describe_settings()])
        return
    for setting in describe_settings():
        print(f"{setting.name} = {setting.typed}\n    {setting.description}")
    print(f"\nshipped recipes: {', '.join(shipped_recipes())}")
