"""ViT-AE++ for medical images: from a folder of raw scans to a trustworthy number.

    >>> import vitaepp
    >>> vitaepp.prepare("scans", "store", size=96)                     # doctest: +SKIP
    >>> vitaepp.pretrain("store", "run", settings=["optim.epochs=300"])  # doctest: +SKIP
    >>> encoder = vitaepp.Encoder.from_pretrained("run")               # doctest: +SKIP
    >>> features = encoder.embed(vitaepp.Store("store"))               # doctest: +SKIP

Every name below is imported when it is first used, so that `import vitaepp` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitaepp.embeddings import Embeddings
    from vitaepp.encoder import Encoder, embed
    from vitaepp.errors import VitaeppError
    from vitaepp.evaluation.comparison import compare
    from vitaepp.evaluation.evaluation import evaluate
    from vitaepp.evaluation.reconstruction import reconstruct
    from vitaepp.experiments.experiment import experiment
    from vitaepp.ingest.download import download
    from vitaepp.ingest.phantom import write_phantoms
    from vitaepp.ingest.prepare import prepare
    from vitaepp.inspection import inspect
    from vitaepp.recipe import Recipe
    from vitaepp.reporting.report import report
    from vitaepp.store import Store
    from vitaepp.training.bench import bench
    from vitaepp.training.plan import plan
    from vitaepp.training.pretrain import pretrain
    from vitaepp.walkthrough import demo

_HOMES = {
    "Embeddings": "vitaepp.embeddings",
    "Encoder": "vitaepp.encoder",
    "Recipe": "vitaepp.recipe",
    "Store": "vitaepp.store",
    "VitaeppError": "vitaepp.errors",
    "bench": "vitaepp.training.bench",
    "compare": "vitaepp.evaluation.comparison",
    "demo": "vitaepp.walkthrough",
    "download": "vitaepp.ingest.download",
    "embed": "vitaepp.encoder",
    "evaluate": "vitaepp.evaluation.evaluation",
    "experiment": "vitaepp.experiments.experiment",
    "inspect": "vitaepp.inspection",
    "plan": "vitaepp.training.plan",
    "prepare": "vitaepp.ingest.prepare",
    "pretrain": "vitaepp.training.pretrain",
    "reconstruct": "vitaepp.evaluation.reconstruction",
    "report": "vitaepp.reporting.report",
    "write_phantoms": "vitaepp.ingest.phantom",
}

__version__ = "0.1.0"

__all__ = [
    "Embeddings",
    "Encoder",
    "Recipe",
    "Store",
    "VitaeppError",
    "__version__",
    "bench",
    "compare",
    "demo",
    "download",
    "embed",
    "evaluate",
    "experiment",
    "inspect",
    "plan",
    "prepare",
    "pretrain",
    "reconstruct",
    "report",
    "write_phantoms",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitaepp' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
