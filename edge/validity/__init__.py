"""Whether a figure may be trusted: the one list of validity checks, and those of them that need logits alone."""
