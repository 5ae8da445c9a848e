"""Every unary call as a value, so that both stacks make the same ones: see `calls.call`."""
