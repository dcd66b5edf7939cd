"""What a machine can build and run, which of its parts do not go together, and the command that mends each.

    facts = examine()                 # or examine(Path("recorded-tree"))
    diagnosis = diagnose(facts, targets.every())

Standard library only, so that a board says the same of itself.
"""

from edge.doctor.diagnosis import MachineDiagnosis, diagnose
from edge.doctor.examination import examine
from edge.doctor.facts import Capability, MachineFacts, Rule, TargetDoctor

__all__ = ["Capability", "MachineDiagnosis", "MachineFacts", "Rule", "TargetDoctor", "diagnose", "examine"]
