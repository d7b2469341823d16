"""The worker: the program that runs once for each host and looks after its slots and the children in them."""
