"""`federation.toml` and `silo-agent.toml` as people edit them: every setting, every wrong value."""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from typer import BadParameter

from aggregator.settings.federation import load_settings, parse_settings
from data_contracts.errors import ConsortiaError
from flows.federation.admin import FederationTerms, settings_text
from infra import command_values as values
from silo_agent.config import load_config, parse_config
from silo_agent.first_day.templates import config_text, policy_text
from silo_agent.policy.policy_file import read_policy

HOME = Path("/home-of-a-test")
Parse = Callable[[bytes, Path], object]


def founded(purpose: str = "Testing", model_name: str = "tiny", **more: Any) -> str:
    fields: dict[str, Any] = {
        "federation": "oncology",
        "run": "run-1",
        "purpose": purpose,
        "model_name": model_name,
        "model_licence": "Apache-2.0",
        "model_path": Path("/models/tiny"),
        "prefect_api_url": "http://127.0.0.1:4200/api",
        "endpoint_url": "https://storage.example",
    }
    return settings_text(FederationTerms(**fields | more))


def uncommented(text: str) -> str:
    """The same file with every setting that it only proposes."""
    return re.sub(r"^# (?=\[{0,2}[a-z_.]+(?: = |\]))", "", text, flags=re.M)


FILES: dict[str, tuple[str, Parse]] = {
    "federation.toml": (founded(), parse_settings),
    "silo-agent.toml": (
        config_text("north", "oncology", "https://storage.example", "cpu", 2),
        parse_config,
    ),
}


def places(text: str) -> Iterator[tuple[str, int]]:
    """Each setting by its dotted name, and its line."""
    section = ""
    for number, line in enumerate(text.splitlines()):
        if found := re.match(r"\[+(.+?)\]", line):
            section = f"{found[1]}."
        elif found := re.match(r"([a-z_]+) = ", line):
            yield section + found[1], number


def edited(text: str, number: int, literal: str) -> bytes:
    lines = text.splitlines()
    lines[number] = re.sub(r" = .*", lambda _: f" = {literal}", lines[number])
    return "\n".join(lines).encode()


LITERALS = (
    *("nan", "-nan", "inf", "-inf", "1e999", "-1", "0", "-0.5", "99999999999999999999", "true"),
    *('""', '" "', '"\\u0000"', '"\\n"', '"\\u001b[2J"', "[]", "[1]", "{}", "{a = 1}", '"../.."'),
    *(
        "1979-05-27",
        "07:32:00",
        '"1e999999999"',
        '"nan"',
        '"' + "x" * 5000 + '"',
        "0x10",
        '"\\u202e"',
    ),
)


@pytest.mark.parametrize("name", FILES)
def test_any_value_of_any_setting_is_taken_or_refused_by_name(name: str) -> None:
    text, parse = FILES[name]
    tried = list(places(text))
    assert len(tried) > 15
    for setting, number in tried:
        for literal in LITERALS:
            try:
                parse(edited(text, number, literal), HOME)
            except ConsortiaError as error:
                assert setting in str(error), (setting, literal, str(error))
                assert len(str(error)) < 600, (setting, literal)


MISTAKES = {
    "federation.toml": {
        "federation": ('"Oncology"', '"o"', '"a b"'),
        "run": ('"../run"', '"run_1"'),
        "purpose": ('""', '" a"', '"a\\nb"', '"' + "x" * 401 + '"'),
        "use": ('"fun"',),
        "trust_mode": ('"blind"',),
        "storage.endpoint_url": ('"storage.example"', '"ftp://a"', '"https://a:b@c"'),
        "prefect.api_url": ('"127.0.0.1:4200/api"', '"http://127.0.0.1:4200"', '"http:///api"'),
        "base_model.name": ('""', '"a\\tb"'),
        "base_model.licence": ('"Apache 2.0"',),
        "adapter.rank": ("0", "-8", "1025"),
        "adapter.alpha": ("0", "4097"),
        "adapter.target_modules": ("[]", '[""]', '"some"'),
        "recipe.local_steps": ("0", "-1", "1.5", "nan"),
        "recipe.sequences_per_step": ("0",),
        "recipe.sequence_length": ("0", "15", "1_000_001"),
        "recipe.learning_rate": ("0", "-0.1", "nan", "inf", '"-inf"', '"fast"', "1e-30", "1e30"),
        "recipe.warmup_steps": ("-1",),
        "round.quorum": ("0", "-2", "1001"),
        "round.evaluation_quorum": ("0", "1001"),
        "round.submit_minutes": ("0", "-1", "nan", "inf", "1e-9", "1e12"),
        "round.evaluate_minutes": ("0", "nan", "inf"),
        "round.weight_cap_tokens": ("0", "9007199254740992"),
        "round.max_attempts": ("0", "100"),
        "round.poll_seconds": ("0", "nan", "inf", "1e9"),
        "merge.rule": ('"best"',),
        "publication.max_mean_increase": ("nan", '"inf"'),
        "ledger.days": ("0", "36501"),
        "schedule.cron": ('""', '"daily"', '"0 2 * *"', '"60 2 * * *"', '"0 2 30 2 *"'),
        "schedule.timezone": ('""', '"CEST"', '"Mars/Olympus"'),
    },
    "silo-agent.toml": {
        "silo": ('"coordinator"', '"North"', '""'),
        "federation": ('"../oncology"',),
        "storage.endpoint_url": ('"storage.example"', '"https://"'),
        "training.device": ('"gpu"', '"CUDA"'),
        "training.ranks": ("0", "-1", "1025", "1.5"),
        "training.zero_stage": ("0", "4"),
        "training.threads_per_rank": ("0",),
        "training.checkpoint_every_steps": ("0",),
        "training.heldout_sequences": ("0",),
    },
}


@pytest.mark.parametrize(
    ("name", "setting", "literal"),
    [(n, s, literal) for n, table in MISTAKES.items() for s, ls in table.items() for literal in ls],
)
def test_a_mistake_in_a_setting_is_refused_when_it_is_loaded(
    name: str, setting: str, literal: str, tmp_path: Path
) -> None:
    text, _ = FILES[name]
    (tmp_path / name).write_bytes(edited(text, dict(places(text))[setting], literal))
    load: Callable[[Path], object] = load_settings if name == "federation.toml" else load_config
    with pytest.raises(ConsortiaError) as refused:
        load(tmp_path)
    message = str(refused.value)
    assert all(word in message for word in (setting, name, "expected", "found", "To fix it"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[storage]", "[storage]\nendpoint = 1", "storage.endpoint"),
        ("https://storage.example", "http://storage.example", "allow_plain_http = true"),
        ('rule = "stack_truncate"', 'rule = "residual"', "[merge]"),
        ("quorum = 2 ", "", "round.quorum"),
        ("[round]", "[round", "federation.toml"),
    ],
)
def test_what_does_not_go_together_is_refused(old: str, new: str, says: str) -> None:
    text = founded().replace(old, new, 1)
    with pytest.raises(ConsortiaError) as refused:
        parse_settings(text.encode(), HOME)
    assert says in str(refused.value)


def test_what_the_files_propose_in_comments_can_be_taken() -> None:
    text = uncommented(founded())
    text = re.sub(r"residual_rank = .*\n", "", text).replace("quorum = 2", "quorum = 5")
    text = text.replace('trust_mode = "auditable"', 'trust_mode = "confidential"')
    settings = tomllib.loads(text)
    assert settings["storage"]["allow_plain_http"] is True
    assert settings["merge"]["robust"] == {"tolerated_silos": 1}
    assert parse_settings(text.encode(), HOME).federation == "oncology"
    own = uncommented(FILES["silo-agent.toml"][0])
    assert parse_config(own.encode(), HOME).training.lock is not None


@given(st.text(max_size=450))
@example('Coding "assistant", it\'s')
@example("C:\\new # not a comment")
@example("\x7f")
def test_what_init_accepts_loading_accepts(text: str) -> None:
    try:
        purpose = values.line(text)
    except BadParameter:
        assume(False)
    assert parse_settings(founded(purpose).encode(), HOME).purpose == purpose
    try:
        name = values.model_name(text)
    except BadParameter:
        return
    settings = parse_settings(founded(model_name=name).encode(), HOME)
    assert settings.base_model.name == name


@pytest.mark.parametrize(
    "data", [b"\xff", b"a = " + b"[" * 30_000, b"a = " + b"9" * 5000, b"=", b"\0", b"a" * 2_000_000]
)
def test_what_is_no_toml_is_said_of_every_file(data: bytes, tmp_path: Path) -> None:
    for name, load in (("federation.toml", load_settings), ("silo-agent.toml", load_config)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConsortiaError, match=re.escape(name)):
            load(tmp_path)
    (tmp_path / "policy.toml").write_bytes(data)
    assert read_policy(tmp_path / "policy.toml").policy is None


@pytest.mark.parametrize("literal", LITERALS)
def test_a_policy_with_any_value_is_read_or_refuses_everything(
    literal: str, tmp_path: Path
) -> None:
    text = uncommented(policy_text("", None)).replace("purposes = []", 'purposes = ["Testing"]')
    text = text.replace('digest = "..."', f'digest = "{"0" * 64}"')
    path = tmp_path / "policy.toml"
    path.write_text(text)
    assert read_policy(path).policy is not None, read_policy(path).problem
    for setting, number in places(text):
        path.write_bytes(edited(text, number, literal))
        file = read_policy(path)
        if file.policy is None:
            assert file.problem and setting.split(".")[-1] in file.problem, (setting, file.problem)
    for name in ("max_learning_rate", "max_rank"):
        path.write_bytes(edited(text, dict(places(text))[f"limits.{name}"], "nan"))
        assert read_policy(path).policy is None
