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

# For those who check types; `as` says that a name is public.
if TYPE_CHECKING:
    from vitaepp.auditing.audit import audit as audit
    from vitaepp.auditing.items import Audit as Audit
    from vitaepp.cli.demo import demo as demo
    from vitaepp.cli.doctor import doctor as doctor
    from vitaepp.data.embeddings import Embeddings as Embeddings
    from vitaepp.data.inspection import inspect as inspect
    from vitaepp.data.store import Store as Store
    from vitaepp.datasets.download import download as download
    from vitaepp.datasets.phantom import write_phantoms as write_phantoms
    from vitaepp.downstream.finetune import finetune as finetune
    from vitaepp.downstream.fit import fit as fit
    from vitaepp.downstream.model import Model as Model
    from vitaepp.downstream.neighbours import neighbours as neighbours
    from vitaepp.downstream.predict import predict as predict
    from vitaepp.downstream.quality import qc as qc
    from vitaepp.encoder.embed import (
        embed as embed,
        embed_store as embed_store,
        raw_features as raw_features,
    )
    from vitaepp.encoder.model import Encoder as Encoder
    from vitaepp.errors import VitaeppError as VitaeppError
    from vitaepp.evaluation.comparison import (
        Comparison as Comparison,
        compare as compare,
        compare_evaluations as compare_evaluations,
    )
    from vitaepp.evaluation.evaluation import evaluate as evaluate
    from vitaepp.evaluation.features import evaluate_features as evaluate_features
    from vitaepp.evaluation.reconstruction import reconstruct as reconstruct
    from vitaepp.evaluation.result import Evaluation as Evaluation
    from vitaepp.experiments.experiment import experiment as experiment
    from vitaepp.experiments.ladder import ladder as ladder
    from vitaepp.explanation.explain import explain as explain
    from vitaepp.ingest.prepare import prepare as prepare
    from vitaepp.interop.export import export as export
    from vitaepp.interop.public import embed_public as embed_public
    from vitaepp.recipe.recipe import Recipe as Recipe
    from vitaepp.reporting.dossier.dossier import dossier as dossier
    from vitaepp.reporting.report import report as report
    from vitaepp.training.bench import bench as bench
    from vitaepp.training.plan import plan as plan
    from vitaepp.training.pretrain import pretrain as pretrain

#: The module of each public name.
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

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitaepp' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
