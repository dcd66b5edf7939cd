"""The workstation's side of a board: the bundle that goes there, the connection, and what is read back from it."""
