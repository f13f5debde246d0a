"""Instances and threads: what is tried, and what wins."""

import pathlib

import pytest

from service.runtime import providers, rehearsal, session, trial
from tests.service.runtime import graphs


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, ["1 x 1"]),
        (2, ["1 x 2", "2 x 1"]),
        (3, ["1 x 3", "3 x 1", "2 x 1"]),
        (4, ["1 x 4", "4 x 1", "2 x 2"]),
        (16, ["1 x 16", "16 x 1", "2 x 8", "4 x 4", "8 x 2"]),
        (64, ["1 x 64", "16 x 4", "2 x 32", "4 x 16", "8 x 8"]),
    ],
)
def test_candidates_share_the_cores(cores: int, expected: list[str]) -> None:
    assert [str(candidate) for candidate in trial.candidates(cores)] == expected


@pytest.mark.parametrize(
    ("figures", "winner"),
    [
        ({(1, 4): (100, 0.010), (4, 1): (104, 0.040)}, (1, 4)),  # 5 % are not worth a later answer
        ({(1, 4): (100, 0.010), (4, 1): (120, 0.040)}, (4, 1)),
        ({(1, 4): (120, 0.002), (4, 1): (120, 0.001)}, (4, 1)),  # so short that threads only disturb
        ({(1, 4): (100, 0.010), (4, 1): (120, 0.040), (2, 2): (118, 0.020)}, (2, 2)),
    ],
)
def test_throughput_wins_and_among_equals_the_answer_to_one(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    figures: dict[tuple[int, int], tuple[float, float]],
    winner: tuple[int, int],
) -> None:
    table = {trial.Candidate(*key): trial.Figures(*value) for key, value in figures.items()}
    monkeypatch.setattr(trial, "candidates", lambda cores: list(table))
    monkeypatch.setattr(trial, "_compare", lambda beside, feed, one: {each: table[each] for each in beside})
    outcome = choose(graphs.convnet(tmp_path / "m.onnx"), 4)
    assert outcome.chosen == trial.Candidate(*winner)
    assert len(outcome.sessions) == (1 if winner[1] == 1 else winner[0])


def choose(path: pathlib.Path, cores: int) -> trial.Outcome:
    def load(threads: int) -> session.Session:
        return session.Session("m", path, session.Options(providers.choose("cpu"), threads))

    inputs = load(1).inputs
    return trial.choose(cores, load, lambda rows: rehearsal.zeros(inputs, rows, has_batch_axis=True), 8)


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_measuring_for_real_ends_with_warm_sessions_of_the_chosen_size(tmp_path: pathlib.Path, cores: int) -> None:
    outcome = choose(graphs.convnet(tmp_path / "m.onnx"), cores)
    assert outcome.chosen in trial.candidates(cores)
    assert len(outcome.sessions) == (1 if outcome.chosen.threads == 1 else outcome.chosen.instances)
    assert outcome.table.count("rows/s") == (0 if cores == 1 else len(trial.candidates(cores)))
