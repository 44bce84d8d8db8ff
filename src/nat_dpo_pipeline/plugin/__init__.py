"""The only room that knows the NeMo Agent Toolkit."""
