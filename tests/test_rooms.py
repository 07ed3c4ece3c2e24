"""Who may import what, and that help is cheap: read from the code itself."""

import ast
import subprocess
import sys
from pathlib import Path

import nutclf

PACKAGE = Path(nutclf.__file__).parent
ROOMS = ["data", "model", "evaluate", "train", "track"]
ROOMS += ["search", "serve", "audit", "ladder", "report"]
"""In the order of imports: a room knows those before it."""

FLOOR = {"errors": 0, "config": 0, "process": 0, "__init__": 0, "cli": 11, "__main__": 12} | {
    room: level for level, room in enumerate(ROOMS, start=1)
}
WITHOUT_KERAS = {"errors", "config", "__init__", "__main__", "data", "evaluate"}
ADMITTED = {
    "mlflow": {"track", "serve"},
    "optuna": {"search"},
    "tensorflow": FLOOR.keys() - WITHOUT_KERAS,
    "keras": FLOOR.keys() - WITHOUT_KERAS,
    "typer": {"cli"},
    "ray": {"search"},
    "psycopg": {"track"},
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


def test_every_file_keeps_to_its_room():
    """It imports from rooms below it only, and a library where its room may; only cli prints."""
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree, here = ast.parse(path.read_text(encoding="utf-8")), room_of(path)
        for name in imports(tree):
            package, _, rest = name.partition(".")
            room = rest.partition(".")[0]
            if package == "nutclf" and FLOOR[room] > FLOOR[here]:
                wrong.append(f"{path}: {here} imports {name}, which lies above it")
            if here not in ADMITTED.get(package, FLOOR):
                wrong.append(f"{path}: {package} is not for {here}")
        if here != "cli" and any(
            isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
            for node in ast.walk(tree)
        ):
            wrong.append(f"{path}: prints")
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_have_one_name():
    stems = [path.stem for path in PACKAGE.rglob("*.py") if path.stem != "__init__"]
    assert len(stems) == len(set(stems))


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
