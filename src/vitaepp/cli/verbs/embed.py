"""`vitaepp embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vitaepp.cli.options import AnyStore, Device, RunPath, StorePath, out_argument
from vitaepp.cli.program import command
from vitaepp.cli.verb import Verb


class _EmbedVerb(Verb):
    """`--encoder` stands for the first argument."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line."""
        for i, word in enumerate(args):
            name, equals, value = word.partition("=")
            if name == "--encoder":
                return super().parse_args(
                    ctx, [value if equals else "".join(args[i + 1 : i + 2]), *args]
                )
        return super().parse_args(ctx, args)


@command(cls=_EmbedVerb)
def embed(
    run: RunPath,
    store: StorePath,
    out: Annotated[Path, out_argument("OUT.parquet", "File to write; .csv for other programs.")],
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time; as many as fit by default.")
    ] = None,
    device: Device = None,
    precision: Annotated[
        str | None,
        typer.Option(help="32, bf16, 16 or auto; by default as in training."),
    ] = None,
    any_store: AnyStore = False,
    last: Annotated[
        bool,
        typer.Option("--last", help="Use the last checkpoint of a training that has not ended."),
    ] = False,
    pools: Annotated[
        str | None,
        typer.Option(
            metavar="mean,cls@6,…",
            help="Also other poolings, after other blocks, for evaluate --candidates.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Instead of RUN: a published 2D vision transformer of transformers or timm, or "
            "hf-hub:user/name.",
        ),
    ] = None,
    slices: Annotated[
        int | None, typer.Option(min=1, help="With --encoder: slices of a volume, 16 if unset.")
    ] = None,
) -> None:
    """Embed every subject of a store, with the controls beside."""
    if encoder is not None:
        from vitaepp.interop.public import embed_public

        if any_store or last or pools is not None:
            raise typer.BadParameter(
                "--any-store, --pools and --last are of a RUN, not of --encoder"
            )
        given: dict[str, Any] = {"slices": slices, "precision": precision}
        given = {name: value for name, value in given.items() if value is not None}
        print(embed_public(encoder, store, out, batch_size=batch_size, device=device, **given))
        return
    if slices is not None:
        raise typer.BadParameter("--slices is of --encoder")
    from vitaepp.encoder.embed import embed as run_embed

    print(
        run_embed(
            run,
            store,
            out,
            batch_size=batch_size,
            device=device,
            precision=precision,
            any_store=any_store,
            last=last,
            pools=pools or (),
        )
    )
