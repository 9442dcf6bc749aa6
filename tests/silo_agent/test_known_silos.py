"""Partners that a policy names: of enough of them, with the keys that people compared, is a sum."""

from pathlib import Path

import pytest

from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.records import Membership
from silo_agent.policy.known_silos import FEW_KNOWN, UNREADABLE, objection_to_sum
from silo_agent.policy.policy_file import PolicyFile, read_policy
from tests.aggregator.federation_samples import key, membership
from tests.silo_agent.ready_silo import ReadySilo
from tests.silo_agent.test_policy import (
    CONFIDENTIAL,
    MEMBERS,
    PLAN,
    SILO,
    confidential_policy,
    context,
    decided_by,
    policy,
)

OTHER, THIRD = PLAN.cohort[1:]
PRINTS = {silo: fingerprint(key(silo).public_key_hex) for silo in PLAN.cohort}


def knowing(tmp_path: Path, known: dict[str, str], least: int | None = 1) -> PolicyFile:
    limit = "" if least is None else f"min_known_silos = {least}"
    confidential_policy(tmp_path, limit)
    path = tmp_path / "policy.toml"
    table = "\n".join(["[known_silos]", *(f'{silo} = "{who}"' for silo, who in known.items())])
    path.write_text(path.read_text().replace("[[models]]", f"{table}\n[[models]]"))
    return read_policy(path)


def by_print(*silos: str) -> dict[str, str]:
    return {silo: PRINTS[silo] for silo in silos}


@pytest.mark.parametrize(
    ("known", "least", "rule"),
    [
        (by_print(OTHER, THIRD), 2, None),
        (by_print(OTHER), 1, None),
        ({OTHER: "any key", THIRD: PRINTS[THIRD]}, 2, None),
        ({OTHER: PRINTS[OTHER].replace(" ", "").upper()}, 1, None),
        # A silo that is no member, or has another key than the one that was compared.
        (by_print(OTHER) | {"bank-z": "any key"}, 2, "policy.known_silos"),
        ({OTHER: PRINTS[THIRD]}, 1, "policy.known_silos"),
        # The silo itself is no partner.
        (by_print(SILO), 1, "policy.known_silos"),
        (by_print(SILO, OTHER), 2, "policy.known_silos"),
    ],
)
def test_a_sum_has_as_many_known_silos_as_the_policy_asks_for(
    tmp_path: Path, known: dict[str, str], least: int, rule: str | None
) -> None:
    file = knowing(tmp_path, known, least)
    assert file.problem is None
    assert decided_by(CONFIDENTIAL, file, context()) == rule


def test_what_is_signed_in_auditable_mode_is_no_sum(tmp_path: Path) -> None:
    file = knowing(tmp_path, by_print(SILO))
    path = tmp_path / "policy.toml"
    path.write_text(
        path.read_text()
        .replace('["confidential"]', '["auditable", "confidential"]')
        .replace("trust_storage_with_deltas = false", "trust_storage_with_deltas = true")
    )
    file = read_policy(path)
    assert decided_by(PLAN, file, context()) is None
    assert decided_by(CONFIDENTIAL, file, context()) == "policy.known_silos"


@pytest.mark.parametrize(
    ("known", "least", "problem"),
    [
        (by_print(OTHER), None, "known_silos and limits.min_known_silos go together"),
        ({}, 1, "known_silos and limits.min_known_silos go together"),
        (by_print(OTHER), 2, "limits.min_known_silos of at most 1"),
        (by_print(OTHER), 0, "limits.min_known_silos"),
        ({OTHER: "any"}, 1, "the fingerprint of a key, 64 hex digits"),
        ({OTHER: PRINTS[OTHER][:-1]}, 1, "the fingerprint of a key, 64 hex digits"),
        ({OTHER: ""}, 1, "the fingerprint of a key, 64 hex digits"),
        ({"../bank": "any key"}, 1, "known_silos"),
    ],
)
def test_a_policy_that_does_not_say_whom_it_knows_is_none(
    tmp_path: Path, known: dict[str, str], least: int | None, problem: str
) -> None:
    table = {f'"{silo}"': who for silo, who in known.items()}
    file = knowing(tmp_path, table, least)
    assert file.policy is None
    assert problem in (file.problem or "")
    assert decided_by(CONFIDENTIAL, file, context()) == "policy.unreadable"


def test_a_key_that_was_replaced_has_to_be_compared_anew(tmp_path: Path) -> None:
    """Whoever holds the root keys could have signed it for somebody else."""
    members = tuple(
        m.model_copy(update={"public_key": key("new").public_key_hex}) if m.silo == OTHER else m
        for m in MEMBERS.silos
    )
    replaced: Membership = membership(silos=members).record
    where = context(membership=replaced)
    file = knowing(tmp_path, by_print(OTHER))
    assert decided_by(CONFIDENTIAL, file, context()) is None
    assert decided_by(CONFIDENTIAL, file, where) == "policy.known_silos"
    assert decided_by(CONFIDENTIAL, knowing(tmp_path, {OTHER: "any key"}), where) is None


def test_a_sum_without_a_policy_is_none(tmp_path: Path) -> None:
    file = knowing(tmp_path, by_print(OTHER, THIRD), 2)
    assert objection_to_sum(PLAN.cohort, file, MEMBERS, SILO) is None
    assert objection_to_sum((SILO, OTHER, OTHER), file, MEMBERS, SILO) == FEW_KNOWN
    assert objection_to_sum((), file, MEMBERS, SILO) == FEW_KNOWN
    nothing = read_policy(tmp_path / "no-policy.toml")
    assert objection_to_sum(PLAN.cohort, nothing, MEMBERS, SILO) == UNREADABLE
    assert objection_to_sum((SILO,), policy(tmp_path), MEMBERS, SILO) is None


@pytest.mark.long
def test_check_says_who_counts_and_whose_key_is_another_one(tmp_path: Path) -> None:
    silo = ReadySilo(tmp_path)
    assert "known silos" not in silo.items()
    own = silo.membership().silos[0]
    south = own.model_copy(update={"silo": "south", "public_key": key("south").public_key_hex})
    members = silo.membership().model_copy(update={"silos": (own, south)})
    (silo.home / "membership.json").unlink()
    silo.be_handed_over(members)
    silo.edit("policy.toml", "# min_known_silos = 2", "min_known_silos = 1")

    def states(*lines: str) -> tuple[str, str]:
        text = (silo.home / "policy.toml").read_text()
        before, rest = text.split("# [known_silos]")[0], text[text.index("[leak_check]") :]
        table = "\n".join(["[known_silos]", *lines, ""])
        (silo.home / "policy.toml").write_text(f"{before}{table}\n# [known_silos]\n{rest}")
        item = silo.items()["known silos"]
        (silo.home / "policy.toml").write_text(text)
        return item.state, item.detail

    print_ = fingerprint(key("south").public_key_hex)
    assert states(f'south = "{print_}"') == ("there", "1 of 1 count, and a sum needs 1")
    state, detail = states(f'south = "{"0" * 64}"')
    assert (state, print_ in detail, "another one" in detail) == ("wrong", True, True)
    state, detail = states('south = "any key"', 'west = "any key"', 'north = "any key"')
    assert state == "warning"
    assert detail.startswith("1 of 3 count")
    assert "west is no member" in detail
    assert "north is this silo itself" in detail
