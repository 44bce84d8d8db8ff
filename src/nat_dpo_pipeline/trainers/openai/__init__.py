"""OpenAI's fine-tuning API, and servers that have it too."""
