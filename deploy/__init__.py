"""An exported student at work, without the training stack."""
