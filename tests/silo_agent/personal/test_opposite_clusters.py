"""Silos with opposite label maps: one adapter for both can serve neither, a personal one does."""

import pytest

from silo_agent.training.processes.launch import TrainingInterruptedError
from silo_agent.training.run_files import RunFiles, write_result
from tests.silo_agent.personal.opposite_clusters import METHODS, OppositeClusters
from tests.silo_agent.training.shared_ranks import finished


def test_one_adapter_for_both_answers_half_of_the_questions(clusters: OppositeClusters) -> None:
    found = [clusters.accuracy(number, clusters.federated) for number in range(2)]
    assert sum(found) / 2 == pytest.approx(0.5, abs=0.1), found
    assert min(found) <= 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_personal_adapter_answers_nearly_all(clusters: OppositeClusters, method: str) -> None:
    for number, job in enumerate(clusters.personal[method]):
        assert clusters.accuracy(number, job) >= 0.95, method


def test_the_gate_knows_the_silos_own_questions(clusters: OppositeClusters) -> None:
    for job in clusters.personal["dual"]:
        measures = finished(job).personal
        assert measures is not None and measures.frozen_alone is not None
        assert measures.set_aside >= 4
        assert measures.used.nats < measures.frozen_alone.nats - 0.1
        assert measures.used.nats <= measures.own.nats + 0.01


def test_where_there_is_one_adapter_there_is_no_gate(clusters: OppositeClusters) -> None:
    measures = finished(clusters.personal["ditto"][0]).personal
    assert measures is not None
    assert measures.gate is None and measures.used == measures.own


def test_a_result_without_its_losses_is_gone_on_with(clusters: OppositeClusters) -> None:
    """An agent that was killed between the two: no process may start here, so one was about to."""
    job = clusters.personal["ditto"][1]
    path, result = RunFiles(job.output_dir).result, finished(job)
    before = path.read_bytes()
    write_result(path, result.model_copy(update={"personal": None}), job.fingerprint())
    try:
        with pytest.raises(TrainingInterruptedError):
            finished(job)
    finally:
        path.write_bytes(before)
    assert finished(job) == result
