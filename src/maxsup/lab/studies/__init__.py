"""The paper's experiments: each of its tables as recipes × methods × seeds, made by one command."""

from maxsup.lab.studies.paper import STUDIES
from maxsup.lab.studies.study import Study

__all__ = ["STUDIES", "Study"]
