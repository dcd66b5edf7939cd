"""What a machine can build and run, which of its parts do not go together, and the command that mends each.

    found = examine()                 # or examine(Path("recorded-tree"))
    result = diagnose(found)          # RULES and TARGETS; callers with more of either hand them over

Standard library only, so that a board says the same of itself.
"""

from edge.doctor.diagnosis import Diagnosis, diagnose
from edge.doctor.examination import examine
from edge.doctor.facts import MachineFacts

__all__ = ["Diagnosis", "MachineFacts", "diagnose", "examine"]
