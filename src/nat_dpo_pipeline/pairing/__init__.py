"""Candidates to a dataset of pairs, as settings say that YAML or a command line can give; without NAT."""
