"""Who may import what, and that help is cheap: read from the code itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nutclf

PACKAGE = Path(nutclf.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = (
    "data",
    "model",
    "train",
    "evaluate",
    "track",
    "search",
    "serve",
    "audit",
    "ladder",
    "report",
)
FLOOR = {"errors": 0, "config": 0, "process": 0, "__init__": 0, "cli": 11, "__main__": 12} | {
    room: level for level, room in enumerate(ROOMS, start=1)
}
KNOW_KERAS = {"process", *ROOMS[1:], "cli"} - {"evaluate"}
ADMITTED = {
    "mlflow": {"track", "serve"},
    "optuna": {"search"},
    "tensorflow": {
        "process",
        "model",
        "train",
        "track",
        "search",
        "serve",
        "audit",
        "ladder",
        "report",
        "cli",
    },
    "keras": {
        "process",
        "model",
        "train",
        "track",
        "search",
        "serve",
        "audit",
        "ladder",
        "report",
        "cli",
    },
    "typer": {"cli"},
}
HEAVY = {"tensorflow", "keras", "mlflow", "optuna", "pandas", "sklearn"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.Module) -> list[str]:
    """Dotted names of all that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: import by the full name"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def each_file(test):
    return pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))(
        test
    )


def test_every_room_is_there():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ROOMS), "a new room needs its place in the order"


@each_file
def test_a_file_imports_from_rooms_below_it_only(path):
    here = FLOOR[room_of(path)]
    for name in imports(parsed(path)):
        package, _, rest = name.partition(".")
        if package == "nutclf" and rest:
            room = rest.partition(".")[0]
            assert FLOOR[room] <= here, f"{room_of(path)} imports {name}"


@each_file
def test_a_library_stays_in_its_rooms(path):
    for name in imports(parsed(path)):
        admitted = ADMITTED.get(name.partition(".")[0])
        assert admitted is None or room_of(path) in admitted, f"{room_of(path)} imports {name}"


@each_file
def test_only_the_command_line_prints(path):
    calls = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call))
    lines = [call.lineno for call in calls if ast.unparse(call.func) == "print"]
    assert room_of(path) == "cli" or not lines


@each_file
def test_a_file_says_what_it_is_for(path):
    assert ast.get_docstring(parsed(path))


def test_help_imports_no_heavy_library():
    """In one process, each verb's help after the other: what one of them imports stays."""
    script = (
        "import sys\n"
        "import typer\n"
        "from nutclf.cli import app, main\n"
        "for verb in ('', *typer.main.get_command(app).commands):\n"
        "    sys.argv = ['nutclf', *verb.split(), '--help']\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, verb\n"
        f"print('IMPORTED', sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: nutclf ") == 1 + len(verbs())
    assert done.stdout.endswith("IMPORTED []\n")


def test_python_m_nutclf_answers_help():
    done = subprocess.run(
        [sys.executable, "-m", "nutclf", "--help"],
        check=False,
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for verb in verbs():
        assert verb in done.stdout
    summaries = done.stdout.partition("Commands:")[2]
    assert "..." not in summaries, "a summary is cut off"


def verbs() -> list[str]:
    import typer

    from nutclf.cli import app

    return sorted(typer.main.get_command(app).commands)
