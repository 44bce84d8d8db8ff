"""The `best_of_n` middleware and its parts."""
