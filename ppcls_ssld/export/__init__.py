"""A trained network -> files of Paddle Inference, its preprocessing beside them, and the proof that they agree."""

from .inference_yml import inference_yml, preprocessing_of, write_inference_yml
from .paddle_inference import ExportedFiles, export_network, writable_formats
from .parity import ParityReport, parity_report, write_parity

__all__ = ["ExportedFiles", "ParityReport", "export_network", "inference_yml", "parity_report", "preprocessing_of",
           "writable_formats", "write_inference_yml", "write_parity"]
