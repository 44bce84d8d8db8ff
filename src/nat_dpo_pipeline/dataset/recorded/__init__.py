"""Candidates that were recorded before, in files of this package, of NAT, of NeMo Relay and of others, as turns."""
