"""Pure values and functions: no framework, no network, no clock, no files."""
