"""The asynchronous room: chat models, scorers, and the recipe that makes candidates with them."""
