"""What the worker decides, without a socket, a clock or a process: which child gets what, and what its death means."""
