"""Whose guards are deleted, and which tests are asked whether they notice."""

from pathlib import Path

from tests.chaos.guards import Guard, instrumented
from tests.chaos.redundant import NO_GUARDS

ROOT = Path(__file__).parents[2]

ROOMS: dict[str, tuple[str, ...]] = {
    "envelope": (
        "data_contracts/protocol/dsse.py",
        "data_contracts/protocol/envelope.py",
        "data_contracts/protocol/payload.py",
        "data_contracts/protocol/public_keys.py",
        "data_contracts/protocol/strict_json.py",
        "data_contracts/protocol/trust_anchor.py",
        "data_contracts/protocol/wire_types.py",
        "data_contracts/protocol/records/*.py",
    ),
    "gate": ("data_contracts/adapters/*.py",),
    "admission": (
        "aggregator/arrivals.py",
        "aggregator/decisions/*.py",
        "aggregator/evidence/*.py",
    ),
    "masks": (
        "aggregator/unmasking/*.py",
        "data_contracts/confidential/*.py",
        "data_contracts/masking/*.py",
        "data_contracts/protocol/relayed.py",
        "silo_agent/masking/*.py",
    ),
    "policy": ("silo_agent/policy/*.py",),
    "marks": ("silo_agent/federation/*.py", "infra/records/feed_reach.py"),
    "release": (
        "silo_agent/agent.py",
        "silo_agent/release/kill_switch.py",
        "silo_agent/release/outbox.py",
        "silo_agent/release/release.py",
        "silo_agent/steps/*.py",
    ),
    "doors": ("silo_agent/release/doors.py",),
    "egress": ("silo_agent/release/egress.py",),
    "feed": (
        "data_contracts/protocol/fed_attempt.py",
        "data_contracts/protocol/known_erasures.py",
        "data_contracts/protocol/membership_chain.py",
        "data_contracts/protocol/trusted_feed.py",
        "infra/records/feed_reader.py",
        "infra/records/kept_feed.py",
        "infra/records/newest_records.py",
        "infra/records/record_store.py",
        "infra/records/seen.py",
    ),
}

NEAR: tuple[str, ...] = (
    *(
        f"tests/aggregator/test_{name}.py"
        for name in (
            *("admission", "agreed_contracts", "candidate_audit", "carried_agreement", "likeness"),
            *("planning", "publication", "report_audit", "stage"),
        )
    ),
    "tests/data_contracts",
    "tests/infra/test_feed_reader.py",
    "tests/infra/test_newest_records.py",
    "tests/infra/test_record_store.py",
    *(
        f"tests/silo_agent/test_{name}.py"
        for name in (
            *("coordinator_view", "doors", "egress", "global_adapters", "loop"),
            *("one_way_out", "policy", "release", "revoked_starts"),
        )
    ),
)
"""Quick ones, next to what they test: most guards are missed by one of these."""
FAR: tuple[str, ...] = (
    *(
        f"tests/aggregator/test_{name}.py"
        for name in (
            *("arrivals", "confidential_rounds", "coordinator", "copies_in_rounds"),
            *("dishonest_masks", "encrypted_rounds", "kept_versions", "ledger"),
            *("memberships_in_rounds", "mixed_versions", "restored_coordinator"),
        )
    ),
    *(
        f"tests/silo_agent/test_{name}.py"
        for name in (*("agent_doors", "agent_evaluation", "coalition_measuring", "restored_silo"),)
    ),
    "tests/silo_agent/personal",
)
"""Whole rounds in memory, for the guards that the near ones do not miss."""
PASSED_OVER: tuple[str, ...] = (
    "tests/data_contracts/dataset",
    "tests/data_contracts/licences",
)
"""They ask nothing of these rooms."""


def guarded_files() -> dict[str, str]:
    """The room of every guarded file, by its path below the root."""
    return {
        path.relative_to(ROOT).as_posix(): room
        for room, patterns in ROOMS.items()
        for pattern in patterns
        for path in sorted(ROOT.glob(pattern))
    }


def module_of(path: str) -> str:
    """The name under which a file is imported."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def all_guards() -> list[Guard]:
    """Every guard of every room."""
    return [
        guard
        for path in guarded_files()
        for guard in instrumented((ROOT / path).read_text(), path).guards
        if guard.name not in NO_GUARDS
    ]
