"""`consortia report verify --earlier`: lifetime totals of a private round against those before."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aggregator.report.bundle import Bundle, pack_bundle
from flows.commands.report_commands import report_app
from tests.aggregator.test_lifetime_totals import BEFORE, MORE, earlier_bundle
from tests.aggregator.test_private_admission import EPSILON, FED, changed, finished


def written(path: Path, bundle: Bundle) -> Path:
    path.write_bytes(pack_bundle(bundle))
    return path


@pytest.mark.parametrize(
    ("total", "fails"), [(EPSILON, False), (MORE, True)], ids=["lower", "higher"]
)
def test_a_total_that_was_higher_in_any_earlier_report_fails(
    tmp_path: Path, total: object, fails: bool
) -> None:
    trust = tmp_path / "membership.json"
    trust.write_bytes(FED.membership.envelope)
    report = written(tmp_path / "report.json", FED.bundle(finished()))
    first = earlier_bundle(changed(**BEFORE, epsilon_lifetime=EPSILON))
    second = earlier_bundle(changed(**BEFORE, epsilon_lifetime=total))
    earlier = [written(tmp_path / f"{n}.json", each) for n, each in enumerate((first, second))]
    options = [word for path in earlier for word in ("--earlier", str(path))]
    arguments = ["verify", str(report), "--trust", str(trust), *options]
    done = CliRunner().invoke(report_app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == (1 if fails else 0), done.output
    assert "lifetime totals rise" in done.output
    assert ("1 of" in done.output) is fails
