"""The report: one HTML page on one or more runs."""

from vitaepp.reporting.report import report

__all__ = ["report"]
