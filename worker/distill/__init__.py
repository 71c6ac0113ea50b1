"""Distillation: batches from the service, forward then reverse KL to a frozen teacher, checkpoints back."""
