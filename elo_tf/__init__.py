"""ELo-TF: evolving losses for unsupervised video representation learning.

The packages stand in the order of the data's way: data, views, models, tasks, losses, training,
features, fitness, evaluation, search, serving, reporting, bin. Each imports only from those
before it.
"""

from elo_tf import quiet

quiet.install()
