"""The final training: the numbers it refuses."""

import pytest

from elo_tf.errors import UserError
from elo_tf.training import final


@pytest.mark.parametrize(("values", "message"), [
    ({"steps": 0}, "pretrain.steps is 0; it must be 1 or more"),
    ({"log_every": 0}, "pretrain.log_every is 0"),
    ({"batch_size": -1}, "pretrain.batch_size is -1"),
    ({"keep_last": 0}, "pretrain.keep_last is 0; it must be 1 or more")])
def test_numbers_that_cannot_be_are_refused(tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        final.pretrain(str(tmp_path), records=None, clip=None, space=None, loss_weights={},
                       **values)
