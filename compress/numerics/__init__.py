"""What every computation stands on: arithmetic, seeds, several processes as one. Below networks and data."""
