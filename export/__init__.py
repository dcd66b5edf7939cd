"""From a torch stage to the file that is shipped, one emitter per runtime. Importing this package imports no torch."""
