"""What `nat dpo` does with a configuration of NAT."""
