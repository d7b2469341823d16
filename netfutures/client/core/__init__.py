"""What the client decides, without a socket, a clock or a thread: what it has submitted, and what became of it."""
