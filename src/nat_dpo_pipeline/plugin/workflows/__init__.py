"""Functions and workflows of the package, and what scores in them."""
