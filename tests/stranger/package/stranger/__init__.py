"""What this package adds on the workstation; what a board needs of it lies in `stranger_device`."""
