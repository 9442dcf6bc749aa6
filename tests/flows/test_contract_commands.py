"""What a data steward and a rights holder type: lint, diff, sign, and building a registry."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_contracts.dataset.contract import load_contract
from data_contracts.dataset.contract.agreement import Parties, agreement_path, read_agreement
from data_contracts.dataset.copyright.overlap import find_overlap
from data_contracts.dataset.copyright.registry import load_registry
from data_contracts.dataset.word_hashes import hash_words
from data_contracts.errors import DataStewardError
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.records import Membership
from data_contracts.protocol.records.membership import Member
from flows.federation.admin import FederationTerms, settings_text
from flows.federation.contract_signing import sign_contract
from infra.disk.durable_files import write_durably
from infra.signing_keys import create_key
from silo_agent.first_day.templates import config_text
from tests.data_contracts.dataset.contract_samples import CONTRACT, replaced
from tests.flows.test_cli import assert_one_message, consortia

NOW = datetime.now(UTC)


class Homes:
    """Home directories of a coordinator and of one silo that know each other."""

    def __init__(self, directory: Path) -> None:
        self.home, self.silo = directory / "fed", directory / "silo"
        root = create_key(directory / "root.pem")
        self.coordinator_key = create_key(self.home / "keys" / "coordinator-key.pem")
        self.silo_key = create_key(self.silo / "keys" / "signing-key.pem")
        membership = Membership(
            federation="oncology",
            issued_at=NOW,
            number=1,
            previous_digest=None,
            expires_at=NOW + timedelta(days=1),
            root_keys=(root.public_key_hex,),
            root_threshold=1,
            coordinator_key=self.coordinator_key.public_key_hex,
            silos=(Member(silo="north", public_key=self.silo_key.public_key_hex),),
        )
        for home in (self.home, self.silo):
            write_durably(home / "membership.json", seal(membership, root).envelope)
        settings = settings_text(
            FederationTerms(
                federation="oncology",
                run="run-1",
                purpose="Question answering",
                endpoint_url="http://127.0.0.1:9",
                prefect_api_url="http://127.0.0.1:9/api",
                model_name="m",
                model_licence="Apache-2.0",
                model_path=Path("m"),
            )
        )
        write_durably(self.home / "federation.toml", settings.encode())
        config = config_text("north", "oncology", "http://127.0.0.1:9", device="cpu", ranks=1)
        write_durably(self.silo / "silo-agent.toml", config.encode())
        self.contract = directory / "north.yaml"
        self.contract.write_text(CONTRACT)
        self.parties = Parties(
            "oncology",
            "north",
            frozenset({self.silo_key.public_key_hex}),
            frozenset({self.coordinator_key.public_key_hex}),
        )

    def in_force(self) -> bool:
        """Whether both have signed the contract as it is now."""
        digest = load_contract(self.contract).digest
        try:
            read_agreement(self.contract, digest, self.parties)
        except DataStewardError:
            return False
        return True


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    return Homes(tmp_path)


@pytest.mark.parametrize("silo_first", [True, False])
def test_both_sides_sign_in_either_order(homes: Homes, silo_first: bool) -> None:
    signers = [(homes.silo, ""), (homes.home, "north")]
    for count, (home, silo) in enumerate(signers if silo_first else signers[::-1], start=1):
        assert not homes.in_force()
        assert sign_contract(homes.contract, home, silo) == (agreement_path(homes.contract), count)
    assert homes.in_force()
    before = agreement_path(homes.contract).read_bytes()
    assert sign_contract(homes.contract, homes.silo) == (agreement_path(homes.contract), 2)
    assert agreement_path(homes.contract).read_bytes() == before


def test_signing_twice_on_one_side_is_one_signature(homes: Homes) -> None:
    for _ in range(2):
        assert sign_contract(homes.contract, homes.silo)[1] == 1
    assert not homes.in_force()


def test_a_changed_contract_needs_both_signatures_again(homes: Homes) -> None:
    sign_contract(homes.contract, homes.silo)
    sign_contract(homes.contract, homes.home, "north")
    homes.contract.write_text(replaced(("value: 20", "value: 10")))
    assert not homes.in_force()
    assert sign_contract(homes.contract, homes.home, "north")[1] == 1
    assert sign_contract(homes.contract, homes.silo)[1] == 2
    assert homes.in_force()


@pytest.mark.long
def test_the_commands_say_what_they_did(homes: Homes) -> None:
    path, home = str(homes.contract), str(homes.silo)
    done = consortia("contract", "lint", path)
    assert done.returncode == 0, done.stderr
    assert "LicenseRef-Own, MIT" in done.stdout
    done = consortia("contract", "sign", path, "--home", home)
    assert "Give contract and agreement to the other side" in " ".join(done.stdout.split())
    done = consortia("contract", "sign", path, "--home", str(homes.home), "--silo", "north")
    assert "the contract is in force" in " ".join(done.stdout.split())
    assert_one_message(
        consortia("contract", "sign", path, "--home", str(homes.home), "--silo", "west"),
        "member silo",
    )
    homes.contract.write_text(CONTRACT.replace("fl.minimumRecords", "fl.minimumRecord"))
    assert_one_message(consortia("contract", "lint", path), "customProperties[fl.minimumRecord]")


def test_diff_says_which_changes_loosen(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(CONTRACT)
    new.write_text(replaced(("value: 12", "value: 10"), ("value: 20", "value: 30")))
    done = consortia("contract", "diff", str(old), str(new))
    assert done.returncode == 1
    assert "1 of 2 changes loosen the contract" in done.stdout
    new.write_text(replaced(("value: 20", "value: 30")))
    assert consortia("contract", "diff", str(old), str(new)).returncode == 0


def test_a_rights_holder_builds_a_registry(tmp_path: Path) -> None:
    work = " ".join(f"word{n}" for n in range(400))
    (tmp_path / "work.txt").write_text(work)
    (tmp_path / "short.txt").write_text("too short")
    into = tmp_path / "registry"
    arguments = ("--name", "press", "--rights-holder", "A house", "--federation", "oncology")
    texts = [str(tmp_path / name) for name in ("work.txt", "short.txt")]
    done = consortia("registry", "build", *texts, *arguments, "--into", str(into))
    assert done.returncode == 0, done.stderr
    signer = next(word for word in done.stdout.split() if len(word) == 64)
    registry = load_registry(
        into / "press.manifest.json",
        into / "press.bloom",
        (into / "press.key").read_bytes(),
        {signer},
        datetime.now(UTC),
    )
    assert (registry.manifest.texts, registry.manifest.texts_without_tile) == (2, 1)
    copied = " ".join(work.split()[100:150])
    assert find_overlap(
        hash_words([f"before {copied} after", "nothing"]), [registry]
    ).hits.tolist() == [
        True,
        False,
    ]
    assert (into / "press.key").stat().st_mode & 0o077 == 0
    assert b"word1" not in b"".join(path.read_bytes() for path in into.iterdir())
    assert_one_message(
        consortia("registry", "build", *texts, *arguments, "--into", str(into)), "no manifest yet"
    )
