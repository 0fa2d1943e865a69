"""A small world to mine in: tiles of two photographs, a pool of a folder, a list and tar archives, a teacher."""

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import paddle
from sklearn.datasets import load_sample_images

from ppcls_ssld.arch import build_network
from ppcls_ssld.config.mine import dump_mine, load_mine
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.mining.run import mine

ROOT = Path(__file__).resolve().parent.parent
CLASSES = 5
TILE = 160


def tiles():
    """Twelve different pictures, uint8 RGB [160, 160, 3]: tiles of two photographs that do not overlap."""
    return [np.ascontiguousarray(photo[y:y + TILE, x:x + TILE]) for photo in load_sample_images().images
            for y in (40, 230) for x in (0, 220, 460)]


def encoded(image, suffix=".png"):
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image, path.suffix))
    return path


def write_tar(path, members):
    """members: name -> bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def teacher_weights(path):
    """Weights of a small network that was never trained, drawn from a fixed seed."""
    paddle.seed(0)
    network = build_network(NetworkConfig("Teacher", "MobileNetV3_small_x0_35"), CLASSES)
    paddle.save(network.state_dict(), str(path))
    return path


@dataclass(frozen=True)
class World:
    """planted: pool file name -> protected file name that it is a copy of. unreadable: names in the pool."""

    folder: Path
    planted: dict
    unreadable: set

    @property
    def tree(self):
        return {
            "Mine": {"output_dir": str(self.folder / "out"), "num_workers": 0, "block_size": 8,
                     "pool": [str(self.folder / "pool" / "more.txt"), str(self.folder / "pool" / "loose"),
                              str(self.folder / "pool" / "shards")],
                     "protect": [str(self.folder / "protected")]},
            "Teacher": {"name": "MobileNetV3_small_x0_35", "pretrained": str(self.folder / "teacher.pdparams"),
                        "engine": "eager"},
            "Score": {"image_size": 32, "resize_short": 32, "batch_size": 4, "classes_stored": 3},
            "Select": {"top_k": 4},
        }

    def config(self, out="out", **sections):
        tree = {section: {**values, **sections.get(section, {})} for section, values in self.tree.items()}
        tree |= {section: values for section, values in sections.items() if section not in tree}
        tree["Mine"]["output_dir"] = str(self.folder / out)
        return load_mine(None, (), tree)

    def mine(self, out="out", wanted=("dedup", "score", "select"), dry_run=False, said=None, **sections):
        lines = [] if said is None else said
        mine(self.config(out, **sections), list(wanted), dry_run, lines.append)
        return self.folder / out

    def command(self, out, **sections):
        """What a shell would be told, without the interpreter."""
        file = self.folder / f"{out}.yaml"
        file.write_text(dump_mine(self.config(out, **sections)))
        return [str(ROOT / "tools" / "mine.py"), "-c", str(file)]

    def launch(self, out, processes, **sections):
        """Mine with so many processes under Paddle's launcher."""
        log = self.folder / f"log_{out}"
        command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(processes), "--log_dir",
                   str(log), *self.command(out, **sections)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PADDLE_DISTRI_BACKEND": "gloo"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return self.folder / out


def make_world(folder):
    """12 tiles: 4 protected, 8 in the pool as they are; copies of the protected ones; files that are no images."""
    pictures = tiles()
    for i in range(4):
        write(folder / "protected" / f"val {i}.png", pictures[i])
    small = [cv2.resize(picture, (48, 48), interpolation=cv2.INTER_AREA) for picture in pictures]
    loose, shards = folder / "pool" / "loose", folder / "pool" / "shards"
    for i in range(4, 8):
        write(loose / f"größe {i}.jpg", pictures[i])
    write(loose / "crop of 0.png", pictures[0][20:130, 30:140])
    write(loose / "mirror of 1.jpg", pictures[1][:, ::-1])
    write(loose / "small of 2.png", small[2])
    write(loose / "grey of 3.png", cv2.cvtColor(cv2.cvtColor(pictures[3], cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))
    (loose / "bytes of 0.png").write_bytes((folder / "protected" / "val 0.png").read_bytes())
    write(loose / "pixels of 1.bmp", pictures[1])
    (loose / "empty.jpg").write_bytes(b"")
    (loose / "half.jpg").write_bytes(encoded(pictures[5], ".jpg")[:900])
    write(loose / "one.png", pictures[5][:1, :1])
    for name, numbers in (("a.tar", (8, 9)), ("b.tar", (10, 11))):
        write_tar(shards / name, {f"n0/{i}.jpg": encoded(pictures[i], ".jpg") for i in numbers} | {"n0/8.cls": b"3"})
    rng = np.random.default_rng(0)
    for i in range(6):
        blotches = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (40, 40))
        write(folder / "pool" / "noise" / f"{i}.png", blotches)
    lines = [f"noise/{i}.png" for i in range(6)] + ["noise/0.png", "./noise/../noise/1.png", "noise/missing.png"]
    (folder / "pool" / "more.txt").write_text("".join(f"{line} 0\n" for line in lines))
    teacher_weights(folder / "teacher.pdparams")
    planted = {"crop of 0.png": "val 0.png", "mirror of 1.jpg": "val 1.png", "small of 2.png": "val 2.png",
               "grey of 3.png": "val 3.png", "bytes of 0.png": "val 0.png", "pixels of 1.bmp": "val 1.png"}
    return World(folder, planted, {"empty.jpg", "half.jpg", "one.png", "missing.png"})


def results(out):
    """Bytes of everything that a run leaves but clocks, the report (it shows them) and what names the folder itself."""
    kept = [path for path in sorted(Path(out).rglob("*"))
            if path.is_file() and path.suffix in (".parquet", ".txt", ".csv")]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def names(path):
    return [Path(row["path"]).name for row in table(path)]


def counts(out):
    return json.loads((out / "manifest.json").read_text())["counts"]
