"""The report of a study: its tables, with the paper's numbers beside ours where it has any, from records alone."""

from maxsup.lab.report.study.page import heading, markdown, write_study_report
from maxsup.lab.report.study.summary import NAME, summarize_study
from maxsup.lab.report.study.tables import grids

__all__ = ["NAME", "grids", "heading", "markdown", "summarize_study", "write_study_report"]
