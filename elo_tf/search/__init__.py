"""The search for a loss: strategies, the journal, and the loop between them."""
