"""What the broker decides, without a socket, a clock or a process: messages and the time go in, commands come out."""
