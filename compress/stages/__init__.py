"""One module a stage of the chain: its inputs, what decides its result (`plan`), and how it is made (`run`)."""
