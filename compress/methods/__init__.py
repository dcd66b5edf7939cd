"""Training objectives, one file each. Importing this package imports no torch."""
