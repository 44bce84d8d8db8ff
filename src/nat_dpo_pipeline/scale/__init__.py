"""Pairing of candidates that do not fit in memory, from files to files, on one machine or on a Ray cluster."""
