"""What `tests/dns/run` is made of."""
