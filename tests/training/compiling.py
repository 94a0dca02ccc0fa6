"""What test_compile.py runs in a process of its own, where nothing checks types in traced code.

main("steps"), main("real") or main("pretrain", STORE, RUN).
"""

import torch

from tests.conftest import TINY
from tests.processes import command_line
from vitaepp.methods import Method, build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.training.pretrain import pretrain
from vitaepp.training.sharding import recompute_blocks
from vitaepp.views.draws import Draws

METHODS = ("vitae++", "vitae", "simsiam", "mocov3")

plain_compile = torch.compile
graphs: list[torch.fx.GraphModule] = []


def capture(*args, mode=None, **options):
    """`torch.compile` up to the compiler: graphs are captured, and run as they are."""
    assert mode == "default"

    def backend(graph, examples):
        graphs.append(graph)
        return graph

    return plain_compile(*args, backend=backend, **options)


def step(method: Method) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(3, 2, 16, 16, 16, generator=generator)
    output = method(images, Draws(0, 0, [0, 1, 2]), 0.25)
    output.loss.backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    return output.loss.detach(), torch.cat([g.flatten() for g in gradients])


def compare(name: str, twice: bool) -> None:
    """A step of a compiled method against one of a plain method."""
    recipe = Recipe.load(settings=(*TINY, f"method={name}"))
    plain, compiled = (build_method(recipe, 2, (16, 16, 16)) for _ in range(2))
    if twice:
        recompute_blocks(compiled)
    graphs.clear()
    compiled.compile_parts("default")
    assert list(compiled.state_dict()) == list(plain.state_dict())
    (loss, gradient), (wanted, expected) = step(compiled), step(plain)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)
    print(name, twice, len(graphs))


def without_compiler(*arguments: str) -> None:
    """`vitaepp` where no C++ compiler is found."""
    from torch._inductor import config

    config.cpp.cxx = ("nowhere",)
    command_line(*arguments)


def main(what, *paths) -> None:
    if what != "real":
        torch.compile = capture
    if what == "pretrain":
        settings = ("trainer.compile=default", "trainer.precision=32")
        pretrain(*paths, settings=(*TINY, *settings))
    else:
        for name in METHODS if what == "steps" else ("vitae++",):
            compare(name, twice=name == "vitae")
