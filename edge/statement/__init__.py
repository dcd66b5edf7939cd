"""The robustness statement: what it says, its form, requirements on it, comparison of two."""
