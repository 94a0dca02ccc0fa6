"""How good an embedding is: linear classifiers with honest controls, and reconstruction metrics."""

from vitaepp.evaluate.evaluation import evaluate
from vitaepp.evaluate.summary import summary_rows, summary_table, verdict

__all__ = ["evaluate", "summary_rows", "summary_table", "verdict"]
