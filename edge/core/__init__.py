"""The ground of all packages: stage folders, errors, interrupts, progress, numbers as text. Standard library only."""
