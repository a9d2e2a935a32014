"""The report of a comparison, from its records alone: summary, verdict, tables, figures, page."""

from maxsup.lab.report.formats import rich_tables
from maxsup.lab.report.page import write_report
from maxsup.lab.report.summary import summarize
from maxsup.lab.report.tables import legend

__all__ = ["legend", "rich_tables", "summarize", "write_report"]
