"""Trajectory builder, trainer and trainer adapters."""
