"""The paper's claims, and what finished comparisons say to each, from records alone."""

from maxsup.lab.report.claims.page import write_claims
from maxsup.lab.report.claims.summary import summarize_claims
from maxsup.lab.report.claims.tables import headline

__all__ = ["headline", "summarize_claims", "write_claims"]
