"""PaddleClas's own evaluation, as `benchmarks/evaluation_parity.py` runs it: its Engine, and what its network saw and said.

    python benchmarks/paddleclas_evaluation.py CHECKOUT YAML WEIGHTS ROOT LIST OUTPUT.npz

CHECKOUT goes first on the path; YAML is one of its configs, used as it is but for the paths, the device and the number
of reading processes. Written: logits float32 [N, C] in the list's order, `inputs` (a SHA-1 of each image that the network
was given, float32 [3, H, W]), `top1` as its metric counts it, and the versions.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np


def main() -> None:
    checkout, config_file, weights, root, images, output = sys.argv[1:]
    sys.path.insert(0, checkout)
    import cv2
    import paddle
    from ppcls.engine.engine import Engine
    from ppcls.utils import config

    engine = Engine(config.get_config(config_file, overrides=[
        "Global.device=cpu", f"Global.pretrained_model={weights.removesuffix('.pdparams')}",
        "Global.output_dir=" + output.removesuffix(".npz"), f"DataLoader.Eval.dataset.image_root={root}",
        f"DataLoader.Eval.dataset.cls_label_path={images}", "DataLoader.Eval.loader.num_workers=0"], show=False),
        mode="eval")
    logits, inputs = [], []

    def note(_, given, answer) -> None:
        logits.append((answer["logits"] if isinstance(answer, dict) else answer).numpy())
        inputs.extend(hashlib.sha1(np.ascontiguousarray(image).tobytes()).hexdigest() for image in given[0].numpy())

    engine.model.register_forward_post_hook(note)
    top1 = engine.eval()
    np.savez(output, logits=np.concatenate(logits), inputs=np.array(inputs), top1=float(top1), opencv=cv2.__version__,
             paddle=paddle.__version__, numpy=np.__version__)


if __name__ == "__main__":
    main()
