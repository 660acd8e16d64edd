"""Which modality a cross-modal task works against."""

from collections.abc import Mapping

from elo_tf.data.clip_spec import MODALITIES
from elo_tf.errors import UserError


def partner_of(modality: str, partners: Mapping[str, str], family: str) -> str:
    """Looks a partner up.

    Raises:
      UserError: if there is none, it is no modality, or it is the modality itself.
    """
    partner = partners.get(modality)
    if partner not in MODALITIES or partner == modality:
        raise UserError(
            f"{family}.partners[{modality!r}] is {partner!r}; it must be another one of "
            f"{', '.join(MODALITIES)}")
    return partner
