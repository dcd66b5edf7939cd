"""The command line: a thin face over functions that users can import. One file a verb, imported when it is used."""
