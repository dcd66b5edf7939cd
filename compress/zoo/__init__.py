"""Networks that others trained: where they come from, how their files are read, which architecture they hold."""
