"""Every interval, size and count of the project, with its unit in its name and why it has that value."""

from typing import Final

# Protocol. A major step refuses older peers; a minor one only adds fields, which older peers ignore.
PROTOCOL_MAJOR: Final = 1
PROTOCOL_MINOR: Final = 0

# Sizes on the wire.
CHUNK_BYTES_MAX: Final = 1 << 20
"""A payload above this travels as chunks, pulled by the side that wants it; CURVE is fastest at about 1 MiB a frame."""
FRAME_BYTES_MIN: Final = 16 << 10
"""A payload from this size on travels in a frame of its own, which spares the copy into the header."""
MESSAGE_BYTES_MAX: Final = CHUNK_BYTES_MAX + (64 << 10)
"""What a socket accepts as one frame (ZMQ_MAXMSGSIZE): a chunk and its header."""
FRAMES_MAX: Final = 68
"""Frames in one message; ZeroMQ itself does not bound them."""
BATCH_TASKS_MAX: Final = 4096
"""Tasks or results in one message: enough to make its cost vanish, few enough to keep a turn short."""
BATCH_BYTES_MAX: Final = 256 << 10
"""Payload bytes after which a batch is closed; one larger payload travels alone."""
PAYLOAD_BYTES_MAX: Final = 16 << 30
"""A declared payload size above this is refused before anything is allocated for it."""
RUN_NUMBER_MAX: Final = 1 << 62
"""Task and dispatch numbers stay below this, so that sums of two never pass 64 bits."""
TEXT_CHARACTERS_MAX: Final = 256
"""Names and reasons that a peer sends are cut to this."""

# Credit.
CREDIT_TASKS: Final = 16384
"""Tasks that a client may have at the broker: four full batches, so that the broker never runs dry."""
CREDIT_BYTES: Final = 16 << 20
"""Payload bytes that a client may have at the broker; a larger payload travels alone."""
WINDOW_BATCHES: Final = 2
"""Unacknowledged batches each way where a round trip is short: one being worked on, one under way."""
CHUNKS_BYTES_MAX: Final = 4 << 20
"""Chunk bytes asked for and not yet received, for each payload."""
WORKER_CREDIT_SECONDS: Final = 0.02
"""A worker asks for about this much measured work a slot beyond what runs."""
WORKER_CREDIT_TASKS_MAX: Final = 2048
"""And at most this many tasks a slot."""

# Times of the connection.
BEAT_S: Final = 1.0
"""Every party says that it is alive this often, with its sequence number, so that a lost last message is noticed."""
ACKNOWLEDGE_AFTER_S: Final = 0.02
"""How long an acknowledgement waits for something to ride on."""
RELEASE_EVERY_S: Final = 0.02
"""Workers are told at most this often which outcomes the clients have."""
SUSPECT_AFTER_S: Final = 10.0
"""A worker that is silent this long gets no new tasks; a peer that hears nothing this long says hello again."""
LEASE_S: Final = 30.0
"""A worker that is silent this long is lost."""
WHO_INTERVAL_S: Final = 1.0
"""An unknown peer is asked to say hello at most this often."""
HELLO_RETRY_S: Final = 2.0
"""A hello that was not answered is said again after this time."""
CONNECT_TIMEOUT_S: Final = 10.0
RECONNECT_TIMEOUT_S: Final = 60.0
RECONNECT_TIMEOUT_MAX_S: Final = 300.0
RECONNECT_INTERVAL_MS_MIN: Final = 50
RECONNECT_INTERVAL_MS_MAX: Final = 150
"""Peers reconnect after a random time between these two: ZeroMQ's own backoff has no jitter."""
PAUSE_S: Final = 2.0
"""A gap in a party's own running above this is a pause of its own: all its deadlines move by it."""

# Tasks in children.
PACKET_SECONDS: Final = 0.001
"""A packet carries about this much measured work: longer ones make results come in lumps, shorter cost wakes."""
PACKET_TASKS_MAX: Final = 256
PACKET_BYTES_MAX: Final = 64 << 10
"""Above this a payload is handed over as memory instead."""
PACKETS_AHEAD: Final = 2
"""Packets a child holds at once when tasks are tiny, so that it never waits for the worker."""
LONG_TASK_S: Final = 0.005
"""Nothing is queued behind tasks that take longer than this."""
STARTED_AFTER_S: Final = 0.002
"""A task that has run this long is reported as started, and what waits behind it may be moved."""
END_GRACE_S: Final = 5.0
"""What a child has for its atexit handlers while its client lives."""
CANCEL_TIMEOUT_S: Final = 1.0
"""How long `Future.cancel` waits for the answer of the broker before it says False."""
CANCEL_HOLD_S: Final = 0.02
"""Tasks that were called back stay in the client this long after the last cancel, so that a burst is local."""
CANCEL_HOLD_S_MAX: Final = 0.25
"""And this long at most, so that steady cancelling cannot starve a pool."""
OUTPUT_BYTES_MAX: Final = 1 << 20
"""Output that waits in a worker; beyond it the children's output is not read, so that they wait."""
OUTPUT_UNDELIVERED_BYTES_MAX: Final = 8 << 20
"""Output that a client has received and not yet printed; what comes beyond it is dropped, counted and said."""

# The embedded cluster.
EMBEDDED_START_TIMEOUT_S: Final = 30.0
STREAM_BYTES_MAX: Final = 64 << 20
"""A message over an inherited socket; the batches and chunks above are far below it."""
SLOTS_MAX: Final = 4096
NESTING_LEVELS_MAX: Final = 2
"""An Executor inside a task inside a task is fine, one deeper is a fork bomb."""
