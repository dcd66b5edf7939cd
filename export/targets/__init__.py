"""One folder a target: how its file is emitted, built and held against the torch model."""
