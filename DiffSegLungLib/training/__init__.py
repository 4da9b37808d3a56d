"""Training: patient store, patches, trainer, checkpoints; may import every room up to the phantom."""
