"""The forecast of a search, against sums by hand; and how people say a time."""

import pytest

from elo_tf.search import forecast
from elo_tf.search.candidate import Control


def control(gpus=0):
    return Control(zipf=1.0, facts={"steps": 100, "batch_size": 8, "gpus": gpus, "replicas": 1},
                   seconds={"build": 50.0, "compile": 9.0, "step": 0.5, "features": 4.0,
                            "cluster": 1.0, "weak": 2.0})


def test_a_candidate_is_its_steps_and_features_and_a_search_is_its_rounds():
    cost = forecast.forecast(control(), candidates=10, repeats=3, workers=4, cores=2)
    assert cost["seconds_per_candidate"] == pytest.approx(100 * 0.5 + 4 + 1 + 2)
    # 13 evaluations by 4 workers are 4 rounds.
    assert cost["hours"] == pytest.approx(4 * 57 / 3600)
    assert (cost["unit"], cost["clips"]) == ("core-hours", 800)
    assert cost["unit_hours_per_candidate"] == pytest.approx(2 * 57 / 3600)
    said = forecast.sentence(cost)
    assert "10 candidates and 3 repeats" in said and "57 s" in said and "32 GPU-hours" in said


def test_on_gpus_their_hours_are_counted():
    cost = forecast.forecast(control(gpus=8), candidates=1, repeats=0, workers=1, cores=2)
    assert cost["unit"] == "GPU-hours" and cost["devices"] == "8 GPU(s)"
    assert cost["unit_hours_per_candidate"] == pytest.approx(8 * 57 / 3600)


@pytest.mark.parametrize(("seconds", "said"), [
    (7.25, "7.25 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h"), (864000, "10.0 days")])
def test_times_as_people_say_them(seconds, said):
    assert forecast.duration(seconds) == said
