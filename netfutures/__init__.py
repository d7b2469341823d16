"""concurrent.futures over the network."""
