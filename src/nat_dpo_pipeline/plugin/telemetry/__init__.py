"""The exporter that records candidates, and what it has to know of a run."""
