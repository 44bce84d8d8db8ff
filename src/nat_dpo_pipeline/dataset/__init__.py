"""Preference pairs as files."""
