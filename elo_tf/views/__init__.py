"""What a batch of clips becomes on the device before it reaches a network."""
