"""The report of a study: one of the paper's tables with ours beside it, from records alone."""

from maxsup.lab.report.study.page import heading, markdown, write_study_report
from maxsup.lab.report.study.summary import NAME, summarize_study
from maxsup.lab.report.study.tables import grids

__all__ = ["NAME", "grids", "heading", "markdown", "summarize_study", "write_study_report"]
