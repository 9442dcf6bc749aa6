"""The sample on a model card is what training renders, made without the tokenizer."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.publishing.prompt_format import ANSWER, PROMPT, TODAY, prompt_format, render_sample
from data_contracts.protocol.artifact import artifact_of_file
from infra.disk.model_files import model_digest

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
TURN = PLAIN + "{% if add_generation_prompt %}assistant: {% endif %}"
TEMPLATES = {
    "beginning of text": "{{ bos_token }}" + TURN,
    "default system message": "{% if messages[0]['role'] != 'system' %}system: Be kind.\n"
    "{% endif %}" + TURN,
    "loop controls": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "generation block": "{% for m in messages %}{{ m.role }}: "
    "{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "json and namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}"
    "{% set ns.n = ns.n + 1 %}{{ m.role }}: {{ m.content | tojson }}{{ ns.n }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "tools asked for": "{% if tools %}tools{% endif %}{% if documents is none %}{% endif %}" + TURN,
    "refuses what is not there": "{% if messages | length > 9 %}{{ raise_exception('long') }}"
    "{% endif %}" + TURN,
}


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def by_the_tokenizer(model: Path) -> tuple[str, str]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    asked = [{"role": "user", "content": PROMPT}]
    answered = [*asked, {"role": "assistant", "content": ANSWER}]
    before = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(answered, tokenize=False)
    return before, whole.removeprefix(before)


@pytest.mark.parametrize("name", [None, *TEMPLATES])
def test_the_sample_is_the_tokenizers(model: Path, name: str | None) -> None:
    if name is not None:
        (model / "chat_template.jinja").write_text(TEMPLATES[name])
    sample = render_sample(model)
    assert sample is not None
    assert (sample.before, sample.answer) == by_the_tokenizer(model)
    assert PROMPT in sample.before and ANSWER in sample.answer


def test_a_template_in_the_tokenizers_configuration_counts(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert render_sample(model) is None
    path = model / "tokenizer_config.json"
    config = json.loads(path.read_text())
    for template in (
        TURN,
        [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TURN}],
    ):
        path.write_text(json.dumps(config | {"chat_template": template}))
        sample = render_sample(model)
        assert sample is not None
        assert (sample.before, sample.answer) == by_the_tokenizer(model)


def test_a_date_is_a_word_and_not_that_of_today(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}\n" + TURN)
    sample = render_sample(model)
    assert sample is not None and sample.before.startswith(f"{TODAY}\nuser: {PROMPT}")


@pytest.mark.parametrize(
    "template",
    [
        "{% if",
        "{{ raise_exception('no') }}",
        "{{ messages[7].content }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ 1 // 0 }}",
        "{{ none + 1 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "no message in it",
        "{% if add_generation_prompt %}another beginning{% endif %}" + PLAIN,
        "{{ 'x' * 10000 }}" + TURN,
        "",
    ],
)
def test_a_template_that_cannot_be_shown_gives_no_sample(model: Path, template: str) -> None:
    (model / "chat_template.jinja").write_text(template)
    assert render_sample(model) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"bos_token": 3}', b"\xff\xfe"])
def test_a_damaged_configuration_is_no_fault(model: Path, content: bytes) -> None:
    (model / "tokenizer_config.json").write_bytes(content)
    sample = render_sample(model)
    assert sample is None or PROMPT in sample.before


def test_the_tokenizers_files_are_listed_with_digests(model: Path, tmp_path: Path) -> None:
    found = prompt_format(model, model_digest(model), tmp_path / "digests.json")
    assert found is not None
    names = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    assert found.files == tuple((name, artifact_of_file(model / name)) for name in names)


def test_another_model_says_nothing_of_the_plans(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests.json"
    digest = model_digest(model)
    (model / "chat_template.jinja").write_text(TURN)
    assert prompt_format(model, digest, cache) is None
    assert prompt_format(tmp_path / "absent", digest, cache) is None


def test_no_torch_is_loaded(model: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from aggregator.publishing.prompt_format import render_sample;"
        "assert render_sample(Path(sys.argv[1])); assert 'torch' not in sys.modules;"
        "import aggregator.publishing.published_round; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
