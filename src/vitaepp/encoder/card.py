"""The model card of an encoder: what it is, what it was trained on, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vitaepp.system.text import dimensions

if TYPE_CHECKING:
    from vitaepp.encoder.config import EncoderConfig

#: What the Hub reads of a card.
HEADER = """---
library_name: vitaepp
tags: [medical-imaging, self-supervised, feature-extraction]
---
"""

USE = """## Use

```python
import vitaepp

encoder = vitaepp.Encoder.from_pretrained("hf-hub:user/name")  # or this folder
features = encoder.embed_files(["patient.nii.gz"])
```

Scans are prepared as those of the training were. A scan of another scanner, body part, modality or
age may get features that mean nothing; compare them with those of your own cohort.

## Not for

- Diagnosis or any other decision about a patient. It is no medical device.
- Publication of features where images may not be published: features may tell persons apart.
- Comparing with features of another encoder, or of images that were prepared in another way.
"""


def model_card(config: EncoderConfig, dim: int, evaluation: Mapping[str, Any] | None = None) -> str:
    """A model card in Markdown.

    Args:
        config: the encoder's.
        dim: its number of features.
        evaluation: of its features, as in metrics.json.
    """
    prepared = config.prepared
    facts = {
        "method": config.name or config.method,
        "network": config.backbone,
        "images": f"{', '.join(config.modalities)}; {dimensions(config.shape['image_size'])}",
        "features": f"{dim}, pooled as {config.pool}",
        "epochs of training": "not known" if config.epochs is None else str(config.epochs),
    }
    for name, value in ({} if prepared is None else prepared.facts).items():
        if name not in ("modalities", "size", "masks"):
            facts[f"prepared: {name}"] = _words(value)
    lines = [HEADER, f"# {facts['method']} encoder of {', '.join(config.modalities)}", ""]
    lines += ["| what | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in facts.items()), ""]
    lines += ["## Measured", "", *_measured(evaluation), "", USE]
    return "\n".join(lines)


def _measured(evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None:
        return ["Nothing was handed on with the encoder about how good its features are."]
    classes, folds = ", ".join(map(str, evaluation["classes"])), len(evaluation["folds"])
    how = "the given test split" if folds == 1 else f"{folds} folds, mean ± deviation over them"
    seen = (
        "The encoder was pre-trained without the test subjects of each fold."
        if evaluation.get("pretraining") == "without each fold's test subjects"
        else "Images of test subjects may have been among those of the pre-training, which sees no "
        "labels."
    )
    rows = {"this encoder": evaluation}
    rows |= {control["what"]: control for control in evaluation.get("controls", {}).values()}
    return [
        f"A linear classifier of `{evaluation['label']}` ({classes}), {evaluation['n']} subjects, "
        f"protocol {evaluation['protocol']}, {how}. {seen}",
        "",
        "| features | AUC | accuracy |",
        "| --- | --- | --- |",
        *(f"| {name} | {_score(r, 'auc')} | {_score(r, 'accuracy')} |" for name, r in rows.items()),
        *(["", "No controls were measured; such a number says little."] if len(rows) == 1 else []),
    ]


def _score(row: Mapping[str, Any], metric: str) -> str:
    mean, deviation = row["mean"][metric], row["std"][metric]
    return f"{mean:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def _words(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
