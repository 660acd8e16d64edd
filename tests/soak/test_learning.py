"""Every task is learned from a world in which it can be, and not by its head alone.

The bar lies halfway from chance to perfect. A task that stays below it cannot be learned; one whose
head passes it on a frozen random encoder asks nothing of the encoder.
"""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from elo_tf.data.clip_spec import MODALITIES
from elo_tf.losses import LossSpace
from elo_tf.tasks.avts import AVTS
from elo_tf.tasks.classification import Classify
from elo_tf.tasks.jigsaw import Jigsaw
from elo_tf.tasks.multisensory import Multisensory
from elo_tf.tasks.relative_patch import RelativePatch
from elo_tf.tasks.tracked_patch import TrackedPatch
from elo_tf.views.clip_views import ClipViews
from elo_tf.views.patch_sampling import JigsawTiles
from tests.soak.learning import HELD_OUT, Lesson
from tests.soak.worlds import QUARTERS, Balls, Orbits, Scenes

pytestmark = pytest.mark.soak


class Quarters(Classify):
    """Which quarter of the circle a blob starts in."""

    def __init__(self, modality="rgb"):
        super().__init__(modality, classes=QUARTERS)


class FewTiles(Jigsaw):
    """Four tiles in one of eight orders."""

    def __init__(self, modality="rgb"):
        super().__init__(modality, sampler=JigsawTiles(grid=2, permutations=8), hidden=64)


class SmallHead(RelativePatch):
    """With a narrower hidden layer."""

    def __init__(self, modality="rgb"):
        super().__init__(modality, hidden=64)


def each(*families):
    return tuple(tuple(f"{m}/{family}" for m in MODALITIES) for family in families)


PICTURES, SEQUENCES = ("rgb/reverse", "gray/reverse"), ("flow/reverse", "audio/reverse")
LESSONS = (
    Lesson(Orbits(noise=0.1), each("reconstruct", "predict", "transfer")),
    Lesson(Orbits(noise=0.2), (*each("shuffle", "contrast", "align"), PICTURES), steps=120),
    # A blob and its flow in one frame tell which way round it goes, unless circles lie anywhere.
    Lesson(Orbits(noise=0.1, anywhere=True), (SEQUENCES,)),
    Lesson(Orbits(noise=0.25), (("rgb/classify", "rgb/sync", "rgb/multisensory"),),
           families=(Quarters, AVTS, Multisensory), steps=150),
    Lesson(Scenes(noise=0.45), (("rgb/jigsaw",),), families=(FewTiles,), steps=120),
    Lesson(Scenes(noise=0.1), (("rgb/relative_patch",),), families=(SmallHead,), steps=350),
    Lesson(Balls(noise=0.3), (("rgb/tracked_patch",),), families=(TrackedPatch,), steps=150),
)


@pytest.mark.parametrize(
    ("lesson", "names"), [(lesson, names) for lesson in LESSONS for names in lesson.together],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "")
def test_learned_by_the_encoder(lesson, names):
    learned = lesson.check(names)
    if names in (PICTURES, SEQUENCES):
        still = learned.measure(Orbits(noise=0.2, speed=(0.0, 0.0)))
        print("of clips that stand still:", still)
        assert max(still.values()) < 0.6


def test_all_losses_of_the_core_are_here():
    here = {name for lesson in LESSONS[:3] for names in lesson.together for name in names}
    assert here == {name for name in LossSpace().names if not name.startswith("distill")}
    assert len(here) == 28


@pytest.mark.parametrize("modality", MODALITIES)
def test_no_single_frame_tells_which_way_time_goes(modality):
    world = Orbits(noise=0.02, anywhere=modality in ("flow", "audio"))

    def frames(seed):
        """The first frame of each clip as it is and reversed, and which is which."""
        views = ClipViews(world.batch(seed, 500), world.clip)
        first = [views.view(modality, view).numpy()[:, 0] for view in ("intact", "reversed")]
        return np.concatenate(first).reshape(1000, -1), np.repeat([0, 1], 500)

    train, test = frames(0), frames(HELD_OUT)
    for classifier in (LogisticRegression(C=0.01, max_iter=500), KNeighborsClassifier(15)):
        assert 0.42 < classifier.fit(*train).score(*test) < 0.58
