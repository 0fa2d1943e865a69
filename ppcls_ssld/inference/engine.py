"""An exported network as a function from images to numbers: the one place that creates a Paddle Inference predictor."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError, WeightsError
from .params_file import check_params_file

MODEL_SUFFIXES = (".json", ".pdmodel")  # Paddle 3's program, and the one that Paddle 2 reads too
GPU_POOL_MB = 100  # what Paddle reserves at the start; the pool grows when more is needed
ONEDNN_SHAPES = 10  # input shapes whose oneDNN primitives are kept; unbounded, they leak with images of many sizes


class InferenceEngine:
    """A network exported by `ppcls_ssld` or PaddleClas: float32 images [N, 3, H, W] -> float32 [N, C].

    model: folder with `inference.json` or `inference.pdmodel`, the path of the files without suffix, or one of the two.
    device: "cpu" (oneDNN), "gpu:N", or "gpu", the card of this process (its rank's under the launcher).
    threads: CPU threads; None = OMP_NUM_THREADS, or all usable cores.
    precision: "fp32", or "fp16" on a GPU.
    Whether the numbers are logits or probabilities is the export's choice (PaddleClas: probabilities).

    Several threads may call one engine; their calls run one after another. For parallel calls build one engine each.
    Paddle 2.6 releases the interpreter lock while the network runs, Paddle 3.3 does not.
    """

    def __init__(self, model: str | os.PathLike, device: str = "cpu", threads: int | None = None,
                 precision: str = "fp32"):
        self.programs, self.params_file = find_model(model)
        check_params_file(self.params_file)
        gpu = _gpu_id(device)
        if precision not in ("fp32", "fp16") or precision == "fp16" and gpu is None:
            raise ConfigError(f"precision '{precision}' on {device}: expected fp32, or fp16 on a GPU")
        self._settings = (gpu, threads or _default_threads(), precision)
        kernels = "oneDNN" if gpu is None else "CUDA"
        self._ways = [(program, kernels) for program in self.programs]
        if gpu is None:
            self._ways.append((self.programs[0], "plain"))
        self._lock = threading.Lock()
        self._load()

    @property
    def backend(self) -> str:
        """What runs, for a log: 'inference.json, oneDNN'."""
        program, kernels = self._ways[0]
        return f"{program.name}, {kernels}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, 3, H, W], N >= 1 -> float32 [N, C]. DataError when the network cannot take that shape."""
        if images.ndim != 4 or len(images) == 0:
            raise DataError(f"expected images [N, 3, H, W] with N >= 1, found shape {list(images.shape)}")
        images = np.ascontiguousarray(images, dtype=np.float32)
        with self._lock:
            while True:
                self._input.copy_from_cpu(images)
                try:
                    self._predictor.run()
                    return self._output.copy_to_cpu()
                except NotImplementedError:
                    # Paddle 3.3.1 finds out only now that its oneDNN lacks an operator (the upsampling in HRNet, in a
                    # .json program); the .pdmodel beside it may do, and plain kernels always do.
                    if len(self._ways) == 1 or not self._ways[1][0].is_file():
                        raise
                    del self._ways[0]
                    self._load()
                except ValueError as e:  # Paddle's InvalidArgument
                    raise DataError(f"{self._ways[0][0]}: the network cannot take images of shape "
                                    f"{list(images.shape)}; check the size that its preprocessing gives") from e

    def _load(self) -> None:
        import paddle.inference as paddle_inference  # here, so that --help and class names need no Paddle

        (program, kernels), (gpu, threads, precision) = self._ways[0], self._settings
        config = paddle_inference.Config(str(program), str(self.params_file))
        config.disable_glog_info()
        if gpu is not None:
            kinds = paddle_inference.PrecisionType
            config.enable_use_gpu(GPU_POOL_MB, gpu, kinds.Half if precision == "fp16" else kinds.Float32)
        else:
            config.disable_gpu()
            # Paddle applies this number to the whole process at each run, so its own default of 1 would slow down
            # eager layers beside the engine.
            config.set_cpu_math_library_num_threads(threads)
            if kernels == "oneDNN":
                config.set_mkldnn_cache_capacity(ONEDNN_SHAPES)
                config.enable_mkldnn()
                # Paddle 3.3.1 lets plain operators (cos, log, rsqrt, ...) overwrite their input although an operator of
                # oneDNN still needs it: silently wrong numbers. Without this pass they are right, and no slower.
                config.delete_pass("inplace_pass")
            elif hasattr(config, "disable_mkldnn"):  # on by default in Paddle 3
                config.disable_mkldnn()
        if program.suffix == ".pdmodel":
            config.enable_memory_optim()  # Paddle 3.3.1 raises when this is asked of a .json program
        self._predictor = paddle_inference.create_predictor(config)
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])


def find_model(model: str | os.PathLike) -> tuple[list[Path], Path]:
    """(program files, best first; parameter file) of what an InferenceEngine is given; WeightsError if missing."""
    prefix, suffixes = Path(model), readable_suffixes()
    if prefix.is_dir():
        prefix = prefix / "inference"
    elif prefix.suffix in MODEL_SUFFIXES:
        prefix, suffixes = prefix.with_suffix(""), [s for s in suffixes if s == prefix.suffix]
    files = [prefix.with_name(prefix.name + suffix) for suffix in suffixes]
    params = prefix.with_name(prefix.name + ".pdiparams")
    programs = [f for f in files if f.is_file() and f.stat().st_size]
    if not programs or not params.is_file():
        folder = prefix.parent
        found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else None
        found = "no such folder" if found is None else ", ".join(found[:8]) or "an empty folder"
        expected = " or ".join(f.name for f in files) or "another program"
        raise WeightsError(f"{model}: expected {expected}, and {params.name}; found {found}. This Paddle reads "
                           f"{' and '.join(readable_suffixes())}; tools/export_model.py writes them")
    return programs, params


def readable_suffixes() -> tuple[str, ...]:
    """Suffixes of the programs that the installed Paddle reads, best first: Paddle 2 knows no `.json`."""
    import paddle

    return MODEL_SUFFIXES if hasattr(paddle, "pir_utils") else MODEL_SUFFIXES[1:]


def _default_threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpu_id(device: str) -> int | None:
    """None for cpu, the card's number for gpu:N; gpu is the one that this process is on."""
    if device == "cpu":
        return None
    match = re.fullmatch(r"gpu(?::(\d+))?", device)
    if not match:
        raise ConfigError(f"device '{device}': an exported network runs on cpu, gpu or gpu:N")
    import paddle

    if not paddle.is_compiled_with_cuda():
        raise ConfigError(f"device '{device}': this Paddle was built without CUDA; install paddlepaddle-gpu or use cpu")
    current = re.fullmatch(r"gpu:(\d+)", paddle.device.get_device())
    return int(match.group(1) or (current.group(1) if current else 0))
