"""Experiments of several comparisons, each made by one command: the paper's tables, and a campaign of our own."""

from maxsup.lab.studies.evidence import STUDIES as EVIDENCE
from maxsup.lab.studies.paper import STUDIES as PAPER
from maxsup.lab.studies.study import Study

STUDIES = {**PAPER, **EVIDENCE}

__all__ = ["STUDIES", "Study"]
