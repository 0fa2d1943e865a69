"""SSLD for PaddlePaddle: label-free distillation of a strong teacher into a better backbone (arXiv 2103.05959)."""

__version__ = "0.1.0"
