"""In what order test files are begun: long ones first, so that none runs alone at the end.

One file is one worker's (`--dist loadfile`). Begun last, a file of a minute keeps one core busy and
the other idle; begun first, the small files fill whatever time is left. The list need not be exact:
what was added since, or is quicker now, costs seconds and no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
FILES: Final = (  # 10 s or more of wall time on two cores, in that order
    "simnet/test_epochs_fidelity.py",
    "end_to_end/test_governance.py",
    "simnet/test_pythons.py",
    "end_to_end/test_demo.py",
    "node/engine/test_exact_formats.py",
    "end_to_end/test_node_faults.py",
    "end_to_end/test_several_models.py",
    "end_to_end/test_real_level.py",
    "end_to_end/test_readme.py",
    "end_to_end/test_coordinator_kills.py",
    "end_to_end/test_seeing_models.py",
    "end_to_end/test_pictures.py",
    "simnet/test_live.py",
    "simnet/test_shrink.py",
    "end_to_end/test_examples.py",
    "end_to_end/test_embeddings.py",
    "simnet/test_epochs.py",
    "node/engine/test_drafted_answers.py",
    "sdk/test_vocabularies.py",
    "node/engine/test_adapters.py",
    "node/engine/test_llama_engine.py",
    "node/engine/test_long_texts.py",
    "node/engine/test_images_read.py",
    "node/engine/test_images_chaos.py",
    "contracts/test_anvil.py",
    "sdk/routing/test_hostile_upstreams.py",
    "end_to_end/test_remote_chain.py",
    "simnet/test_sweep.py",
    "end_to_end/test_chat_page.py",
    "end_to_end/test_start_faults.py",
    "end_to_end/test_chain_kills.py",
    "contracts/test_ledger_machine.py",
    "end_to_end/test_verify_levels.py",
    "node/engine/test_engine_chaos.py",
    "simnet/test_faults.py",
    "end_to_end/test_audit_show.py",
    "end_to_end/test_dashboard.py",
    "node/engine/test_sketched_answers.py",
    "node/engine/test_grammar_answers.py",
    "end_to_end/test_gateway.py",
    "end_to_end/test_followed_votes.py",
    "end_to_end/test_owner_commands.py",
    "simnet/test_invariants.py",
    "node/engine/test_embedding_reference.py",
    "simnet/test_fast.py",
    "simnet/test_slots.py",
    "sdk/routing/test_routed_upstream.py",
    "contracts/test_outbox.py",
    "contracts/test_sealed.py",
    "test_wheel.py",
)


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """`items`, the tests of FILES before all others; within a file they stay as they are."""
    rank = {TESTS / name: number for number, name in enumerate(FILES)}
    return sorted(items, key=lambda item: rank.get(item.path, len(FILES)))
