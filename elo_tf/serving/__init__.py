"""A trained encoder outside this project: SavedModel export and serving."""
