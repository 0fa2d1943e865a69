"""All results at a glance: benchmarks/results/README.md, newest first within each benchmark.

    python benchmarks/summary.py

So that a regression is a number below another one. A result says `headline` itself, or is read by the table here.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def _throughput(report: dict) -> str:
    return "; ".join(f"{row['case'].split(' -> ')[-1]}: " + ", ".join(
        f"{key} {ratio['median']:.2f}x" for key, ratio in row["ratios"].items()) for row in report["rows"])


def _step(report: dict) -> str:
    relative = report["relative_speed"]
    return (f"of the student alone: stored {relative['stored']['median']:.3f}, online {relative['online']['median']:.3f}; "
            f"alone {report['images_per_s']['alone']:.0f} images/s")


def _cpu_training(report: dict) -> str:
    return "; ".join(f"{row['case']} {row['ratio_median']:.1f}x" for row in report["rows"] if row["way"] == "fast")


def _target_training(report: dict) -> str:
    return ", ".join(f"{arm} {100 * found['mean']:.1f} %" for arm, found in report["summary"].items())


def _near_duplicates(report: dict) -> str:
    lowest = {side: min(found[side]["recall"] for found in report["recall"].values())
              for side in ("pool_edited", "protected_edited")}
    return (f"lowest recall of an edit {lowest['pool_edited']:.3f}, other way round {lowest['protected_edited']:.3f}; "
            f"false alarms {report['false_alarms']['photographic']['alarms']} of {report['false_alarms']['photographic']['images']:,}")


def _mining_scale(report: dict) -> str:
    found = [f"dedup against {row['protected']:,}: {row['images_per_cpu_second']:.0f} images/s"
             for row in report.get("dedup", [])]
    found += [f"select {row['per_s'] / 1e6:.1f} million/s" for row in report.get("select", [])[-1:]]
    return "; ".join(found)


def _cifar10_mining(report: dict) -> str:
    return "planted copies found: " + ", ".join(f"{kind} {rate:.3f}" for kind, rate in report["planted_recall"].items())


def _target_fidelity(report: dict) -> str:
    (name, found), *_ = report["rows"].items()
    row = next(r for r in found["by"] if (r["student"], r["k"], r["bits"], r["tail"]) == ("near", 10, 12, "student"))
    return f"{name}: gradient error at top-10, 12 bits, near the teacher {row['grad_error']:.2%}"


def _targets_access(report: dict) -> str:
    slowest = min(min(row["reads_per_second"]) for row in report["rows"])
    return f"{report['record_bytes']} bytes a view; at least {slowest:,.0f} reads/s"


def _reader(report: dict) -> str:
    return "; ".join(f"{row['way']} {row['images_per_second']:.0f} images/s, {row['of_paddleclas']['median']:.2f}x PaddleClas"
                     if row.get("of_paddleclas") else f"{row['way']} {row['images_per_second']:.0f} images/s"
                     for row in report["rows"])


def _trial(report: dict) -> str:
    sides = {run["side"] for run in report["runs"]}
    return ", ".join(f"{side} {100 * statistics.mean(r['top1'] for r in report['runs'] if r['side'] == side):.1f} %"
                     for side in sorted(sides))


HEADLINES: dict[str, Callable[[dict], str]] = {
    "throughput": _throughput, "step": _step, "cpu_training": _cpu_training, "target_training": _target_training,
    "cifar10_trial": _trial, "near_duplicates": _near_duplicates, "mining_scale": _mining_scale,
    "cifar10_mining": _cifar10_mining, "target_fidelity": _target_fidelity, "targets_access": _targets_access,
    "reader": _reader,
    "cifar10_duplicates": lambda r: f"{r['flagged']} pool images flagged, {r['protected images with a copy']} test images with "
                                    "a copy",
    "list_loading": lambda r: f"{r['lines']:,} lines in {r['load_seconds']} s, {r['memory_with_workers_mib']} MiB with "
                              f"{r['workers']} workers",
}


def headline(name: str, report: dict) -> str:
    """The number that would tell a regression."""
    if "headline" in report:
        return report["headline"]
    reader = next((HEADLINES[key] for key in HEADLINES if name.startswith(key)), None)
    return reader(report) if reader else report.get("what", "")


def render() -> str:
    """The page, as Markdown."""
    rows = []
    for path in RESULTS.glob("*.json"):
        date, commit, name = path.stem.split("_", 2)
        report = json.loads(path.read_text())
        when = report["environment"].get("time", date)  # older results know the day alone
        rows.append((name, when, commit, headline(name, report), path.name))
    lines = ["# Results at a glance", "", "Made by `python benchmarks/summary.py`. Each file holds the settings, the versions and "
             "all single runs.", "", "| benchmark | date | commit | result |", "| --- | --- | --- | --- |"]
    rows.sort(key=lambda row: row[1], reverse=True)
    rows.sort(key=lambda row: row[0])
    lines += [f"| [{name}]({file}) | {when[:10]} | {commit} | {text} |"
              for name, when, commit, text, file in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(render())
    print(f"written: {RESULTS / 'README.md'}")
