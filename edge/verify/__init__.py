"""The deployed bytes executed on an attack set: verdicts, figures, the verified stage."""
