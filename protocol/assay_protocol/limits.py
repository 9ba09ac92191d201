"""Every bound on what a peer may make us hold or do, by name. Sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import Final

# frames and messages
FRAME_BYTES_MAX: Final = 1 << 20
MESSAGE_BYTES_MAX: Final = FRAME_BYTES_MAX - 64
TEXT_BYTES_MAX: Final = 1024

# jobs
PROMPT_TOKENS_MAX: Final = 131_072
OUTPUT_TOKENS_MAX: Final = 2_048  # longer answers are several jobs (VERIFICATION 5.11)
TOKENS_PER_FRAME_MAX: Final = 256
CHECKPOINT_TOKENS: Final = 32  # the node signs the running hash this often
UNACKED_TOKENS_MAX: Final = 128  # the node pauses sending beyond this
LEAF_TOKENS: Final = 16
TICKET_LIFETIME_SECONDS: Final = 600

# peers
MODELS_PER_NODE_MAX: Final = 16
ADDRESSES_PER_NODE_MAX: Final = 8
SESSIONS_MAX: Final = 4_096
SESSION_REQUESTS_MAX: Final = 256
SESSION_QUEUE_FRAMES_MAX: Final = 1_024
STREAMS_PER_PEER_MAX: Final = 256
