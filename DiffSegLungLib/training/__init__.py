"""Training of the student: patient store, patches, trainer, checkpoints."""
