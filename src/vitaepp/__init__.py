"""ViT-AE++ for medical images: from a folder of raw scans to a trustworthy number.

    >>> import vitaepp
    >>> vitaepp.prepare("scans", "store", size=96)                     # doctest: +SKIP
    >>> vitaepp.pretrain("store", "run", settings=["optim.epochs=300"])  # doctest: +SKIP
    >>> encoder = vitaepp.Encoder.from_pretrained("run")               # doctest: +SKIP
    >>> features = encoder.embed(vitaepp.Store("store"))               # doctest: +SKIP

The names in `__all__`, `vitaepp.errors`, and the modules that the documentation names are public.
Everything else may change with any version. Every name is imported when it is first used, so that
`import vitaepp` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitaepp.auditing.audit import audit
    from vitaepp.auditing.items import Audit
    from vitaepp.cli.demo import demo
    from vitaepp.cli.doctor import doctor
    from vitaepp.data.embeddings import Embeddings
    from vitaepp.data.inspection import inspect
    from vitaepp.data.store import Store
    from vitaepp.datasets.download import download
    from vitaepp.datasets.phantom import write_phantoms
    from vitaepp.downstream.finetune import finetune
    from vitaepp.downstream.fit import fit
    from vitaepp.downstream.model import Model
    from vitaepp.downstream.neighbours import neighbours
    from vitaepp.downstream.predict import predict
    from vitaepp.downstream.quality import qc
    from vitaepp.encoder.embed import embed, embed_store, raw_features
    from vitaepp.encoder.model import Encoder
    from vitaepp.errors import VitaeppError
    from vitaepp.evaluation.comparison import Comparison, compare, compare_evaluations
    from vitaepp.evaluation.evaluation import evaluate
    from vitaepp.evaluation.features import evaluate_features
    from vitaepp.evaluation.reconstruction import reconstruct
    from vitaepp.evaluation.result import Evaluation
    from vitaepp.experiments.experiment import experiment
    from vitaepp.experiments.ladder import ladder
    from vitaepp.explanation.explain import explain
    from vitaepp.ingest.prepare import prepare
    from vitaepp.interop.export import export
    from vitaepp.interop.public import embed_public
    from vitaepp.recipe.recipe import Recipe
    from vitaepp.reporting.dossier.dossier import dossier
    from vitaepp.reporting.report import report
    from vitaepp.training.bench import bench
    from vitaepp.training.plan import plan
    from vitaepp.training.pretrain import pretrain

_HOMES = {
    "Audit": "vitaepp.auditing.items",
    "Comparison": "vitaepp.evaluation.comparison",
    "Embeddings": "vitaepp.data.embeddings",
    "Encoder": "vitaepp.encoder.model",
    "Evaluation": "vitaepp.evaluation.result",
    "Model": "vitaepp.downstream.model",
    "Recipe": "vitaepp.recipe.recipe",
    "Store": "vitaepp.data.store",
    "VitaeppError": "vitaepp.errors",
    "audit": "vitaepp.auditing.audit",
    "bench": "vitaepp.training.bench",
    "compare": "vitaepp.evaluation.comparison",
    "compare_evaluations": "vitaepp.evaluation.comparison",
    "demo": "vitaepp.cli.demo",
    "doctor": "vitaepp.cli.doctor",
    "dossier": "vitaepp.reporting.dossier.dossier",
    "download": "vitaepp.datasets.download",
    "embed": "vitaepp.encoder.embed",
    "embed_public": "vitaepp.interop.public",
    "embed_store": "vitaepp.encoder.embed",
    "evaluate": "vitaepp.evaluation.evaluation",
    "evaluate_features": "vitaepp.evaluation.features",
    "experiment": "vitaepp.experiments.experiment",
    "explain": "vitaepp.explanation.explain",
    "export": "vitaepp.interop.export",
    "finetune": "vitaepp.downstream.finetune",
    "fit": "vitaepp.downstream.fit",
    "inspect": "vitaepp.data.inspection",
    "ladder": "vitaepp.experiments.ladder",
    "neighbours": "vitaepp.downstream.neighbours",
    "plan": "vitaepp.training.plan",
    "predict": "vitaepp.downstream.predict",
    "prepare": "vitaepp.ingest.prepare",
    "pretrain": "vitaepp.training.pretrain",
    "qc": "vitaepp.downstream.quality",
    "raw_features": "vitaepp.encoder.embed",
    "reconstruct": "vitaepp.evaluation.reconstruction",
    "report": "vitaepp.reporting.report",
    "write_phantoms": "vitaepp.datasets.phantom",
}

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Comparison",
    "Embeddings",
    "Encoder",
    "Evaluation",
    "Model",
    "Recipe",
    "Store",
    "VitaeppError",
    "__version__",
    "audit",
    "bench",
    "compare",
    "compare_evaluations",
    "demo",
    "doctor",
    "dossier",
    "download",
    "embed",
    "embed_public",
    "embed_store",
    "evaluate",
    "evaluate_features",
    "experiment",
    "explain",
    "export",
    "finetune",
    "fit",
    "inspect",
    "ladder",
    "neighbours",
    "plan",
    "predict",
    "prepare",
    "pretrain",
    "qc",
    "raw_features",
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
