"""Gate, joined adapters, settings and records that are set aside: rules without a model."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_contracts.adapters.adapter_format import AdapterFile, open_adapter
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from silo_agent.config import parse_config
from silo_agent.personal.joined import JoinedAdapter
from silo_agent.training.personal_part import PersonalPart
from silo_agent.training.prompt_gate import Measured, PromptGate, chosen_gate, likeness
from silo_agent.training.ranks.conversation import Conversation
from silo_agent.training.ranks.gated_measures import prompts_of
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.personal_measures import PartOfShard, is_set_aside, trained_part
from silo_agent.training.ranks.token_shard import open_shard, write_shard
from tests.silo_agent.training.tiny_jobs import TinySilo, drawn_adapter
from tests.tiny_model import tiny_adapter_layout

CONFIG = b'silo = "north"\nfederation = "demo"\n[storage]\nendpoint_url = "http://127.0.0.1:1"\n'


def measured(*records: tuple[float, float, float]) -> Measured:
    """Of records with one answer token each: loss without, loss with, likeness."""
    without, with_it, likenesses = zip(*records, strict=True)
    return Measured(
        tuple((nats, 1) for nats in without), tuple((nats, 1) for nats in with_it), likenesses
    )


class TestGate:
    def test_it_takes_all_text_like_the_own_and_a_little_beyond(self) -> None:
        gate = chosen_gate((1.0,), measured((2, 1, 0.99), (2, 1, 0.95), (1, 1, 0.9)))
        assert gate.takes(0.81) and not gate.takes(0.79), "twice as far as the farthest"

    def test_training_prompts_show_how_far_the_own_text_goes(self) -> None:
        found = measured((2, 1, 0.99), (2, 1, 0.95))
        assert chosen_gate((1.0,), found, (0.98, 0.9)).takes(0.81)
        assert not chosen_gate((1.0,), found, (0.98, 0.97)).takes(0.89)

    def test_it_leaves_out_what_it_makes_worse(self) -> None:
        found = measured((2, 1, 0.99), (2, 1, 0.9), (1, 2, 0.85), (1, 2, 0.2))
        gate = chosen_gate((1.0,), found)
        assert [gate.takes(each) for each in found.likenesses] == [True, True, False, False]

    def test_an_adapter_of_no_use_acts_nowhere(self) -> None:
        gate = chosen_gate((1.0,), measured((1, 2, 0.9), (1, 2, 0.8)))
        assert gate.threshold is None and not gate.takes(1.0)

    def test_no_use_but_for_some_is_used_for_those(self) -> None:
        found = measured((2, 1, 0.9), (2, 1, 0.8), (1, 1.5, 0.3), (1, 1.5, 0.2))
        gate = chosen_gate((1.0,), found)
        assert [gate.takes(each) for each in found.likenesses] == [True, True, False, False]

    @pytest.mark.parametrize("seed", range(20))
    def test_the_mix_is_near_the_better_one(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        found = measured(*rng.uniform(0, 3, (30, 3)).tolist())
        gate = chosen_gate((1.0,), found)
        best = min(sum(n for n, _ in sums) / 30 for sums in (found.without, found.with_it))
        assert sum(n for n, _ in found.mixed(gate)) / 30 <= best + 0.005 + 1e-9

    def test_likeness_is_the_cosine(self) -> None:
        assert likeness((3.0, 4.0), (6.0, 8.0)) == pytest.approx(1)
        assert likeness((1.0, 0.0), (0.0, 2.0)) == 0
        assert likeness((0.0, 0.0), (1.0, 2.0)) == 0

    def test_rounding_does_not_decide(self) -> None:
        gate = chosen_gate((1.0,), measured((2, 1, 0.9), (1, 9, 0.5)))
        assert gate.takes(0.9 - 1e-6) and not gate.takes(0.9 - 1e-4)
        assert PromptGate.model_validate_json(gate.model_dump_json()) == gate


def test_a_prompt_ends_before_its_first_answer_token() -> None:
    sequence = PackedSequence()
    sequence.append([5, 6, 7, 8], [-100, -100, 7, 8])
    sequence.append([9, 10, 11, 12, 13], [-100, 10, -100, 12, 13])
    sequence.append([14, 15], [14, 15])
    prompts = prompts_of(sequence)
    assert prompts.token_ids == [5, 6, 9, 14], "of an answer that begins at once its first token"
    assert prompts.positions == [0, 1, 0, 0] and not prompts.answer_tokens


def drawn(layout: AdapterLayout, path: Path) -> AdapterFile:
    """An adapter with random B in a file."""
    return open_adapter(drawn_adapter(path, layout, 0.5), layout)


def test_joined_adapters_have_the_sum_of_the_products(tmp_path: Path) -> None:
    """Of other scalings and of fewer modules: what a part lacks it adds nothing to."""
    narrow = tiny_adapter_layout(3, 2, use_rslora=True)
    narrow = narrow.model_copy(update={"targets": narrow.targets[:5]})
    parts = [drawn(tiny_adapter_layout(4, 1), tmp_path / "one"), drawn(narrow, tmp_path / "other")]
    joined = JoinedAdapter(parts)
    assert joined.layout.rank == 7 and joined.layout.scaling == 1
    for target in joined.layout.targets:
        expected = np.zeros((target.out_features, target.in_features))
        for part in parts:
            if target in part.layout.targets:
                a, b = part.module(target)
                expected += part.layout.scaling * (b.astype(float) @ a.astype(float))
        a, b = joined.module(target)
        assert np.allclose(b.astype(float) @ a.astype(float), expected, rtol=1e-5, atol=1e-7)


def test_the_conversations_of_a_record_stay_together(tmp_path: Path) -> None:
    """A record of three pieces after one of a single one, and so on."""
    records = tmp_path / "train.jsonl"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    lines = [json.dumps({"messages": [*turns, {"number": n}]}) for n in range(200)]
    records.write_text("\n".join(lines))
    pieces = [(number, piece) for number in range(200) for piece in range(1 + number % 3)]
    made = [Conversation([n + 3, 2], [n + 3, 2], continues=p > 0) for n, p in pieces]
    write_shard(tmp_path / "x.tokens", bytes(32), made)
    shard = open_shard(tmp_path / "x.tokens", bytes(32), Path("train.jsonl"))
    assert shard is not None
    silo = TinySilo(
        root=tmp_path, model_dir=tmp_path, train_records=records, heldout_records=records
    )
    part = trained_part(silo.job("own", personal=PersonalPart(is_mixed=True)), shard)
    assert isinstance(part, PartOfShard) and 4 <= len(part.rest) < len(part)
    trained, aside = (
        {each.cut(place, 10)[0][0] - 3 for place in range(len(each))} for each in (part, part.rest)
    )
    assert trained.isdisjoint(aside) and trained | aside == set(range(200))
    places = np.arange(len(part.rest))
    assert set(part.rest.records_of(places).tolist()) == aside
    assert trained_part(silo.job("all"), shard) is shard
    records.write_text("".join(f'{{"text": "{number}"}}\n' for number in range(200)))
    without = trained_part(silo.job("text", personal=PersonalPart(is_mixed=True)), shard)
    assert without is shard, "a gate has no prompts to ask"


def test_a_tenth_is_set_aside_whatever_else_is_there() -> None:
    lines = [b'{"prompt": "%d"}\n' % number for number in range(4000)]
    share = sum(is_set_aside(line, 1) for line in lines) / len(lines)
    assert 0.08 < share < 0.12
    assert [is_set_aside(line, 1) for line in lines] != [is_set_aside(line, 2) for line in lines]
    assert is_set_aside(lines[0], 1) == is_set_aside(lines[0].strip(), 1)


@pytest.mark.parametrize(
    ("text", "method", "pull"),
    [
        (b"", "off", "0.01"),
        (b'[personal]\nmethod = "dual"\n', "dual", "0.01"),
        (b'[personal]\nmethod = "ditto"\nlambda = 0.5\n', "ditto", "0.5"),
    ],
)
def test_the_section(tmp_path: Path, text: bytes, method: str, pull: str) -> None:
    section = parse_config(CONFIG + text, tmp_path).personal
    assert (section.method, str(section.pull), section.is_on) == (method, pull, method != "off")


@pytest.mark.parametrize("text", [b'method = "both"', b"lambda = 0", b"lambda = 1e9", b"other = 1"])
def test_a_wrong_setting_is_named(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(Exception, match=r"setting personal\."):
        parse_config(CONFIG + b"[personal]\n" + text + b"\n", tmp_path)


def test_beside_quantised_base_weights_there_is_none() -> None:
    lines = b'[training]\nbase_weights = "4-bit"\n[personal]\nmethod = "dual"\n'
    with pytest.raises(SiloOperatorError, match=r'expected base_weights = "full" beside'):
        parse_config(CONFIG + lines, Path("/home"))
