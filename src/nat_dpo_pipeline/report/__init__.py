"""Numbers about a run, and how they are told."""
