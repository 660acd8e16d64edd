"""Strategies of the search: they ask for weight vectors and are told their fitness."""

from elo_tf.search.strategies.cma_es import CMAES
from elo_tf.search.strategies.grid import Grid
from elo_tf.search.strategies.random_search import RandomSearch
from elo_tf.search.strategies.strategy import Strategy
from elo_tf.search.strategies.tournament import Tournament

__all__ = ["CMAES", "Grid", "RandomSearch", "Strategy", "Tournament"]
