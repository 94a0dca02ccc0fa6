"""How good an embedding is: linear classifiers with honest controls, and reconstruction metrics."""

from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.summary import summary_rows, summary_table, verdict

__all__ = ["evaluate", "summary_rows", "summary_table", "verdict"]
