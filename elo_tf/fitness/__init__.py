"""The fitness of a loss: its features' clusters against Zipf's law, or against labels."""
