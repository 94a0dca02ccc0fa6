"""The report: one HTML page on one or more runs."""

from vitaepp.report.page import report

__all__ = ["report"]
