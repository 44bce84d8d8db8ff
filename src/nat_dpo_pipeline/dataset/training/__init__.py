"""From files of pairs to the configuration of the tool that trains on them."""
