"""Attacks that need no gradients, and the independent check of a candidate. numpy alone."""
