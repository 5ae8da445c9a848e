"""Pictures of workflows: a region tree first, then one module for each way to draw it."""
