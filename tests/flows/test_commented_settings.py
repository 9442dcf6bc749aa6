"""What the written files show as comments is right: uncommented, each line loads."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aggregator.settings.federation import parse_settings
from flows.federation.admin import FederationTerms, settings_text
from infra.storage.config import StorageSection, s3_settings
from infra.storage.s3_bucket import S3Bucket
from silo_agent.config import parse_config
from silo_agent.first_day.templates import LocalModel, config_text, policy_text
from silo_agent.policy.leak_check import OFF
from silo_agent.policy.policy_file import Policy, read_policy, require_policy

ADDRESS = "http://127.0.0.1:9"
SETTING = re.compile(r"# (?=\[|[a-z_]+ = )")

FEDERATION = settings_text(
    FederationTerms(
        "oncology", "run-1", "c", "d", "MIT", Path("/m"), "http://127.0.0.1:4200/api", ADDRESS
    )
)
AGENT = config_text("north", "oncology", ADDRESS, device="cpu", ranks=1)
SHOWS_MEMORY = "show_memory = true"
SUMS = ("min_summed_silos = 4", "min_known_silos = 2", "max_sums_per_start = 1")
PRIVACY = ("[privacy]", "required = true")
UNCHECKED = f'off = "{OFF}"'
POLICY = policy_text("research", None).replace(f"# {SHOWS_MEMORY}", SHOWS_MEMORY)
KNOWN = POLICY[POLICY.index("# [known_silos]") : POLICY.index("# the fingerprint of a silo")]
KNOWS = KNOWN.removeprefix("# ").replace("\n# ", "\n")
for _line in (*SUMS, *PRIVACY, UNCHECKED):
    POLICY = POLICY.replace(f"# {_line}", _line)
POLICY = POLICY.replace(KNOWN, KNOWS)
"""Without a model none of its settings is in force, so both come together."""
WITH_MODEL = policy_text("research", LocalModel("m", "MIT", "0" * 64, Path("/m")))

BESIDE = {
    "profile": ('# credential_source = "chain"', 'credential_source = "chain"'),
    "residual_rank": ('rule = "stack_truncate"', 'rule = "residual"'),
    "[training.nodes]": ("ranks = 1 ", "ranks = 2 "),
    "[[models]]": ('"..."', f'"{"0" * 64}"'),
    "min_known_silos": (KNOWN, KNOWS),
    "[known_silos]": ("# min_known_silos", "min_known_silos"),
    "[masking]": ('trust_mode = "auditable"', 'trust_mode = "confidential"'),
    "[merge.robust]": ("quorum = 2   ", "quorum = 5   "),
}
"""What the comment of a setting says has to be changed with it."""


def load_federation(text: str, folder: Path) -> StorageSection:
    return parse_settings(text.encode(), folder).storage


def load_agent(text: str, folder: Path) -> StorageSection:
    return parse_config(text.encode(), folder).storage


def load_policy(text: str, folder: Path) -> Policy:
    (folder / "policy.toml").write_text(text)
    return require_policy(read_policy(folder / "policy.toml"))


def blocks(text: str) -> Iterator[tuple[int, int]]:
    """First and last line of each commented setting; a table has its settings with it."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        end = at + 1
        if SETTING.match(lines[at]):
            while lines[at].startswith("# [") and end < len(lines) and lines[end][:3] != "# [":
                if not SETTING.match(lines[end]):
                    break
                end += 1
            yield at, end
        at = end


def shown(text: str) -> list[tuple[str, str]]:
    """Each commented setting by name, and the file with it in force."""
    found = []
    for first, end in blocks(text):
        lines = text.splitlines()
        lines[first:end] = [line.removeprefix("# ") for line in lines[first:end]]
        name = lines[first].split("#")[0].partition(" = ")[0].strip()
        changed = "\n".join(lines)
        if name in BESIDE:
            assert BESIDE[name][0] in changed, name
            changed = changed.replace(*BESIDE[name])
        found.append((name, changed))
    return found


FILES: list[tuple[str, Callable[[str, Path], object]]] = [
    (FEDERATION, load_federation),
    (AGENT, load_agent),
    (POLICY, load_policy),
    (WITH_MODEL, load_policy),
]


@pytest.mark.parametrize(
    ("text", "load"),
    [
        pytest.param(changed, load, id=f"{load.__name__} {name}")
        for original, load in FILES
        for name, changed in shown(original)
    ],
)
def test_a_commented_setting_loads_when_it_is_uncommented(
    text: str, load: Callable[[str, Path], object], tmp_path: Path
) -> None:
    assert load(text, tmp_path) is not None


@pytest.mark.parametrize(("text", "load"), FILES[:2])
def test_every_setting_of_the_storage_is_shown(
    text: str, load: Callable[[str, Path], StorageSection], tmp_path: Path
) -> None:
    section = text[text.index("[storage]") : text.index("\n[", text.index("[storage]"))]
    named = set(re.findall(r"(?m)^(?:# )?([a-z_]+) = ", section))
    everything = load(text.replace(section, SETTING.sub("", section)), tmp_path)
    assert everything.model_fields_set == named == set(type(everything).model_fields)
    assert named >= set(StorageSection.model_fields)


def test_every_setting_of_the_storage_makes_a_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "credentials"
    shared.write_text("[oncology]\naws_access_key_id = K\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    (tmp_path / "ca.pem").write_text("")
    text = FEDERATION.replace(
        FEDERATION[: FEDERATION.index("[prefect]")],
        SETTING.sub("", FEDERATION[: FEDERATION.index("[prefect]")]),
    )
    settings = s3_settings(load_federation(text, tmp_path), tmp_path)
    assert settings.asked_as == "the AWS profile oncology"
    assert S3Bucket(settings, "oncology-plans").name == "oncology-plans"
