"""The fitness of a loss: how closely the clusters of its features follow Zipf's law."""
