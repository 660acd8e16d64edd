"""A few tasks are learned, and not by their heads alone. `make soak` has them all."""

import pytest

from tests.soak.learning import Lesson
from tests.soak.worlds import Orbits


@pytest.mark.parametrize(("noise", "names"), [
    (0.1, ("rgb/shuffle", "rgb/predict")), (0.25, ("flow/contrast", "flow/align"))])
def test_learned_by_the_encoder(noise, names):
    Lesson(Orbits(noise), (names,), steps=60).check(names)
