"""Training methods, a file each: options, terms of the loss, what the attack ascends, and its `Method`.

Options are read wherever a configuration is, so no method's file imports torch. They take it from `base`, which
imports it when a term is computed; what keeps parameters or statistics holds them in a torch module (`Stateful.state`)
in the place of being one; `features` and `memory`, which are modules of torch, are imported in bodies.
"""
