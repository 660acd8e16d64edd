"""How the pretraining model is trained: devices, optimisation, checkpoints, the final training."""
