"""Connect Three as a source of preference pairs."""
