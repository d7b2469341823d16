"""The client: the executor, its futures, and the one thread that talks to the broker."""
