"""Every bound on what a peer may make us hold or do, by name. Sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import Final

# frames and messages
FRAME_BYTES_MAX: Final = 1 << 20
MESSAGE_BYTES_MAX: Final = FRAME_BYTES_MAX - 64
TEXT_BYTES_MAX: Final = 1024

# jobs
PROMPT_TOKENS_MAX: Final = 131_072
OUTPUT_TOKENS_MAX: Final = 2_048  # longer answers are several jobs (docs/verification.md 7)
TOKENS_PER_FRAME_MAX: Final = 256
CHECKPOINT_TOKENS: Final = 32  # the node signs the running hash this often
UNACKED_TOKENS_MAX: Final = 128  # the node pauses sending beyond this
LEAF_TOKENS: Final = 16
LEAVES_MAX: Final = OUTPUT_TOKENS_MAX // LEAF_TOKENS
SKETCH_BYTES: Final = 10  # of one token (sketches.py)
TEXTS_MAX: Final = 256  # of one job that embeds (embeddings.py)
DIMS_MAX: Final = 16_384  # numbers in a vector
VECTORS_BYTES_MAX: Final = 4 << 20  # of one job's answer
PROMPT_LOGPROBS_BYTES_MAX: Final = 4 << 20  # told of one job's prompt (prompt_logprobs.py)
VECTOR_FRAME_BYTES_MAX: Final = 64 << 10  # one vector of DIMS_MAX numbers fits
AUDITORS_PER_JOB_MAX: Final = 8  # whose statements a verdict may rest on
REVEAL_BYTES_MAX: Final = 64 << 10  # a reveal, or opened leaves, of the longest answer
GAP_BINS: Final = 16  # of a calibration table
CALIBRATION_PAIRS_MAX: Final = 1_024
ROUND_RECEIPTS_MAX: Final = 4_096  # of one round of the lottery; its document fits a message
TICKET_LIFETIME_SECONDS: Final = 600
TEMPERATURE_MAX: Final = 4.0
TOP_K_MAX: Final = 1 << 19
REPETITION_PENALTY_MIN: Final = 0.5
REPETITION_PENALTY_MAX: Final = 2.0
REPETITION_WINDOW_MAX: Final = 4_096
PENALTY_MAX: Final = 2.0  # presence and frequency, either sign
LOGIT_BIAS_MAX: Final = 100.0  # either sign
LOGIT_BIAS_ENTRIES_MAX: Final = 256
STOP_TOKENS_MAX: Final = 32
GRAMMAR_BYTES_MAX: Final = 16 << 10  # of the text that says which answers are allowed
IMAGES_MAX: Final = 8  # of one job
IMAGES_BYTES_MAX: Final = 768 << 10  # their pixels together: 512 x 512 of three bytes
IMAGE_JOB_BYTES_MAX: Final = 1_000_000  # pixels and prompt together: they travel in one frame
IMAGE_TOKENS_MIN: Final = 9  # positions an image takes: fewer could not spell its digest
IMAGE_TOKENS_MAX: Final = 4_096
IMAGE_SIDE_MAX: Final = 4_096  # pixels
LOGPROBS_MAX: Final = 20  # alternatives told of beside each drawn token
SIGNED_BYTES_MAX: Final = 8_192  # a ticket with the longest logit bias, and its signature

# peers
MODELS_PER_NODE_MAX: Final = 16
ADDRESSES_PER_NODE_MAX: Final = 8
SESSIONS_MAX: Final = 4_096
SESSION_REQUESTS_MAX: Final = 256
SESSION_QUEUE_FRAMES_MAX: Final = 1_024
STREAMS_PER_PEER_MAX: Final = 256

# governance and the chain
RULED_MODELS_MAX: Final = 4_096  # models that governance says something about
SHARES_MAX: Final = 8  # of one model
PHRASES_MAX: Final = 1_024  # of a moderation policy
PHRASE_BYTES_MAX: Final = 256
POLICY_BYTES_MAX: Final = 512 << 10
CHAIN_BLOCK_BYTES_MAX: Final = 256 << 10  # one block of the local chain, as RLP
VOTERS_MAX: Final = 1_024

# model cards
CARD_BYTES_MAX: Final = 16 << 20
CARD_LABEL_BYTES_MAX: Final = 128
CARD_TEMPLATE_BYTES_MAX: Final = 64 << 10
CARD_SOURCE_BYTES_MAX: Final = 256
CARD_PIECE_BYTES_MAX: Final = 1024
CARD_VOCAB_MAX: Final = 1 << 19
CARD_MERGES_MAX: Final = 1 << 20
CARD_TEXTS_MAX: Final = 1 << 14
CARD_EOG_MAX: Final = 64
CARD_CONTEXT_MAX: Final = 1 << 24
CARD_MARKS_MAX: Final = 16  # tokens before an image, and after it
CARD_PRICE_MAX: Final = 10**12  # micro-credits per 1000 tokens
MODEL_BYTES_MAX: Final = 1 << 44

# blocks of model files, from node to node
BLOCK_BYTES: Final = 1 << 20
BLOCKS_MAX: Final = 1 << 20  # files up to 1 TiB
BLOCK_PIECE_BYTES: Final = 1 << 16  # of one frame, so that no block needs a large frame's budget
