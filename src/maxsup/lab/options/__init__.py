"""The options of each command; the documentation of a field is what `--help` shows."""

from maxsup.lab.options.files import DataMake, DataShow, Export, Import, StudyList
from maxsup.lab.options.finished import Analyze, Claims, Corrupt, Probe, Report, Segment
from maxsup.lab.options.training import Compare, Distill, Study, Train, Tune

__all__ = [
    "Analyze",
    "Claims",
    "Compare",
    "Corrupt",
    "DataMake",
    "DataShow",
    "Distill",
    "Export",
    "Import",
    "Probe",
    "Report",
    "Segment",
    "Study",
    "StudyList",
    "Train",
    "Tune",
]
