"""Classifiers that run: what every runner is, and a folder a runtime."""
