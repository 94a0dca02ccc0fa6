"""What metrics, controls, protocols and losses are called in print.

Names of methods come from the recipe, which lists the losses; a metrics.json and the facts of
embeddings carry them.
"""

from __future__ import annotations

_METRICS = {
    "auc": "AUC",
    "c_index": "C-index",
    "c_uno": "Uno's C",
    "kappa": "weighted kappa",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson": "Pearson's r",
    "spearman": "Spearman's ρ",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "first_loss": "loss, first tenth",
    "lowest_loss": "loss, lowest tenth",
    "last_loss": "loss, last tenth",
}
_UNITS = {"psnr": "dB"}

#: What a threshold was chosen for, in the training part.
GOALS = {
    "balanced": "the largest sum of sensitivity and specificity",
    "specificity_90": "90 % specificity",
    "specificity_95": "95 % specificity",
    "sensitivity_90": "90 % sensitivity",
    "sensitivity_95": "95 % sensitivity",
}

#: Controls, as rows of a table name them.
CONTROLS = {
    "scratch": "trained from scratch",
    "untrained": "untrained encoder",
    "raw": "raw intensities (PCA)",
    "mean": "mean of the training part",
}

#: Controls in a sentence, with their verb.
CONTROLS_IN_SENTENCES = {
    "scratch": ("the same network from scratch", "leads"),
    "untrained": ("the untrained encoder", "leads"),
    "raw": ("raw intensities", "lead"),
    "mean": ("the mean of the training part", "leads"),
}

#: Classifiers, by the protocol of `evaluate`, and fine-tuning.
PROTOCOLS = {
    "svm": "linear SVM",
    "linear": "linear probe",
    "knn": "nearest neighbours",
    "finetune": "fine-tuning",
}

#: Models of other tasks than classes, by task and protocol.
_MODELS = {
    ("regression", "linear"): "ridge regression",
    ("regression", "svm"): "linear support vector regression",
    ("ordinal", "linear"): "threshold model of ordered classes",
    ("survival", "linear"): "Cox regression",
}

#: Terms of the training loss of ViT-AE++, in the order of the paper; then those that are not its.
LOSSES = {
    "reconstruction": "Reconstruction",
    "perceptual": "Perceptual (VGG-16)",
    "edge": "Edge (Sobel)",
    "contrastive": "Contrastive",
}


def model_name(task: str, protocol: str) -> str:
    """What was fitted to features.

    >>> model_name("classification", "svm"), model_name("survival", "linear")
    ('linear SVM', 'Cox regression')
    """
    return _MODELS.get((task, protocol)) or PROTOCOLS.get(protocol, protocol)


def metric_name(metric: str) -> str:
    """A metric within a sentence.

    >>> metric_name("auc"), metric_name("accuracy"), metric_name("auc@20")
    ('AUC', 'accuracy', 'AUC with 20 labels')
    """
    metric, _, labels = metric.partition("@")
    return _METRICS.get(metric, metric) + (f" with {labels} labels" if labels else "")


def metric_title(metric: str) -> str:
    """A metric as the head of a column, with its unit.

    >>> metric_title("accuracy"), metric_title("psnr")
    ('Accuracy', 'PSNR (dB)')
    """
    name = metric_name(metric)
    unit = f" ({_UNITS[metric]})" if metric in _UNITS else ""
    return name[0].upper() + name[1:] + unit
