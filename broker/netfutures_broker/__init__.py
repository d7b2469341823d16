"""The broker: the program in the middle, which queues tasks, hands them to workers and passes results back."""
