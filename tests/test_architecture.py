"""The picture of the rooms in docs/architecture.md, kept true."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FREE = {"structs", "rng", "registry", "errors", "stop", "atomic", "attributes"}  # every room may use these
MAY_IMPORT = {
    "structs": set(), "rng": set(), "errors": set(), "stop": set(), "registry": {"errors"},
    "atomic": {"errors"}, "attributes": {"errors", "registry"}, "inference": {"errors"}, "parallel": set(),
    "config": set(),
    "arch": {"config", "inference"}, "loss": {"config"}, "data": {"config"}, "optim": {"config"}, "metric": {"config"},
    "export": {"arch", "config", "data", "inference"},
    "engine": {"arch", "config", "data", "loss", "metric", "optim", "parallel", "targets"},
    "mining": {"arch", "config", "data", "inference", "parallel"},
    "targets": {"arch", "config", "data", "parallel"},
    "demo": {"arch", "config", "data", "engine", "export", "inference", "mining"},
    "pack": {"config", "data", "mining"},
    "cli": {"arch", "config", "data", "demo", "engine", "export", "inference", "mining", "pack", "parallel", "targets"},
}
OUTSIDE = {"paddle.distributed": {"parallel"}, "ppcls": {"arch"}, "paddleclas": {"arch"}}


def imports(path: Path):
    """Dotted names that a file imports, relative ones resolved, wherever in the file they stand."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[:len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "ppcls_ssld").parts
    return parts[0].removesuffix(".py")


def sources():
    return [p for p in sorted((ROOT / "ppcls_ssld").rglob("*.py")) if room_of(p) not in ("__init__", "__main__")]


def test_rooms_import_only_what_the_picture_allows():
    wrong = []
    for path in sources():
        room = room_of(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "ppcls_ssld" or len(parts) < 2 or parts[1] in (room, "__version__"):
                continue
            if parts[1] not in FREE | MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, wrong


def test_paddleclas_and_paddle_distributed_are_imported_in_one_room_each():
    wrong = []
    for path in sources():
        for name in imports(path):
            for outside, rooms in OUTSIDE.items():
                if (name == outside or name.startswith(outside + ".")) and room_of(path) not in rooms:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, wrong


def test_mining_processes_meet_in_files():
    """A barrier times out while one process works alone for long, and here it does: listing, indexes, the report."""
    for path in (ROOT / "ppcls_ssld" / "mining").glob("*.py"):
        used = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)
                and isinstance(n.value, ast.Name) and n.value.id == "parallel"}
        assert used <= {"rank", "world_size", "is_main", "set_device"}, path


def test_config_and_pixels_stay_free_of_paddle():
    for path in [*(ROOT / "ppcls_ssld" / "config").glob("*.py"), ROOT / "ppcls_ssld" / "data" / "pixels.py"]:
        assert not [n for n in imports(path) if n.split(".")[0] == "paddle"], path


def test_deploy_uses_no_training_stack():
    allowed = ("ppcls_ssld.attributes", "ppcls_ssld.data.pixels", "ppcls_ssld.errors", "ppcls_ssld.inference", "deploy")
    for path in (ROOT / "deploy").glob("*.py"):
        for name in imports(path):
            assert not name.startswith("ppcls_ssld") or name == "ppcls_ssld" or name.startswith(allowed) \
                or name == "ppcls_ssld.data", f"{path.name} imports {name}"


def test_nothing_evaluates_or_executes_text():
    for path in [*sources(), *(ROOT / "deploy").glob("*.py"), *(ROOT / "tools").glob("*.py"),
                 *(ROOT / "benchmarks").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{path}: {node.func.id}"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}: bare except"
