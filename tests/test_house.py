"""The laws of the house, as tests: who may import whom, sizes, docstrings, what is never called.

They read sources and run nothing. A law that hurts is changed here, openly, with its reason.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import copycat
from copycat import errors

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "copycat"
PRODUCT = ("copycat", "benchmarks", "wheels")
EVERYTHING = (*PRODUCT, "tests")

GROUND = {"errors", "types", "ports", "paths", "system"}
SHARED = {"serializer", "machine", "config", "config_file", "connection", "handshake"}
CLIENT = {
    "client", "credentials", "session", "pipeline", "outcomes", "listeners", "lifetime", "pulse",
    "scopes",
}  # fmt: skip
MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    "raft": GROUND,
    "_core": GROUND,
    **dict.fromkeys(SHARED, GROUND | SHARED | {"_core"}),
    "network": GROUND | SHARED,
    **dict.fromkeys(CLIENT, GROUND | SHARED | CLIENT | {"_core"}),
    "resources": GROUND | SHARED | CLIENT | {"_core"},
    "cluster": GROUND | SHARED | CLIENT,
    "machine_handle": GROUND | SHARED | CLIENT | {"resources"},
    "nodes": GROUND | SHARED | CLIENT | {"resources", "machine_handle"},
    "handles": GROUND | SHARED | CLIENT | {"cluster", "resources", "machine_handle", "nodes"},
    "server": GROUND | SHARED | {"raft", "_core"},
    "node": GROUND | SHARED | CLIENT | {"raft", "_core", "network"}
    | {"resources", "cluster", "handles", "server"},
}  # fmt: skip
"""Room -> rooms beneath it. The rooms not named here (cli, demo, testing) stand on the roof."""

ROOF = {"cli", "demo", "sync", "testing", "__init__", "__main__"}

PURE_SERVER = (
    "administration", "agreement", "applier", "desk", "executor", "listening", "member", "roster",
    "sessions", "store", "system", "transactions", "transfer", "tree",
)  # fmt: skip
OUTSIDE_WORLD = {
    "asyncio", "datetime", "os", "random", "secrets", "selectors", "signal", "socket",
    "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
"""What decides must not know: clocks, chance, files, sockets, threads, an event loop."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed source."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def sources(*folders: str, suffix: str = ".py") -> list[Path]:
    """Source files of these folders of the project."""
    found = [path for each in folders for path in sorted((ROOT / each).rglob(f"*{suffix}"))]
    return [path for path in found if not {"dist", "build"} & set(path.parts[len(ROOT.parts) :])]


def show(path: Path, node: ast.AST | int | None = None) -> str:
    """A place as the reader's editor understands it."""
    line = node if isinstance(node, int) else getattr(node, "lineno", 1)
    return f"{path.relative_to(ROOT)}:{line}"


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Absolute names of the modules that a file imports, wherever in the file."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            if node.module is None or module == "copycat":
                yield from ((f"{module}.{alias.name}", node) for alias in node.names)
            else:
                yield module, node


def room_of(path: Path) -> str:
    """The package or module of copycat that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def called(node: ast.AST) -> str:
    """The dotted name of what a call calls, so far as it is one."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func)
    return ""


def calls(folders: Iterable[str], wrong: Callable[[Path, str], bool]) -> list[str]:
    """Places where something is called that must not be."""
    return [
        f"{show(path, node)} {called(node)}"
        for path in sources(*folders)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and wrong(path, called(node))
    ]


def definitions(tree: ast.Module) -> Iterator[tuple[Definition, bool]]:
    """Classes, functions and methods, and whether each is public; nothing local to a function."""

    def within(body: list[ast.stmt], public: bool) -> Iterator[tuple[Definition, bool]]:
        for node in body:
            if isinstance(node, Definition):
                seen = public and not node.name.startswith("_")
                yield node, seen
                if isinstance(node, ast.ClassDef):
                    yield from within(node.body, seen)
            elif isinstance(node, ast.If):
                yield from within(node.body + node.orelse, public)

    return within(tree.body, True)


def is_signature(node: Definition) -> bool:
    """Whether a definition is but a signature: of a protocol, an overload, or a setter."""
    names = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
    return bool(names & {"overload", "setter"}) or ast.unparse(node.body[-1]) == "..."


def length(node: Function) -> int:
    """Lines of a function, its docstring not counted: that one is read elsewhere."""
    said = node.body[0] if ast.get_docstring(node) is not None else None
    lines = (node.end_lineno or 0) - node.lineno + 1
    return lines - ((said.end_lineno or 0) - said.lineno + 1 if said is not None else 0)


# -- who may import whom ---------------------------------------------------------------------------


def test_every_room_has_its_place() -> None:
    """A new module is put into the picture of the layers before anything may import it."""
    rooms = {room_of(path) for path in sources("copycat")}
    assert rooms - set(MAY_IMPORT) - ROOF == set()


def test_imports_point_downward() -> None:
    """A room imports itself and what lies beneath it; Raft and the core know nothing of each."""
    wrong = []
    for path in sources("copycat"):
        room = room_of(path)
        for module, node in imports(path):
            top, _, rest = module.partition(".")
            target = rest.partition(".")[0]
            if top != "copycat" or room in ROOF or target == room:
                continue
            if target not in MAY_IMPORT[room]:
                wrong.append(f"{show(path, node)} {room} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_only_the_roof_imports_the_roof() -> None:
    """Neither the command line nor the test helpers are needed by the library itself."""
    wrong = [
        f"{show(path, node)} imports {module}"
        for path in sources("copycat")
        for module, node in imports(path)
        for target in [module.removeprefix("copycat.").partition(".")[0]]
        if module.startswith("copycat.") and target in ROOF and room_of(path) not in ROOF
    ]
    assert not wrong, "\n".join(wrong)


def test_real_doors_are_chosen_in_one_place() -> None:
    """Whatever touches the world is made by node.py, a local cluster or the command line."""
    doors = {"copycat.network", "copycat.server.clock", "copycat.server.disk"}
    wrong = [
        f"{show(path, node)} imports {module}"
        for path in sources("copycat")
        for module, node in imports(path)
        if module in doors and room_of(path) not in {"node", *ROOF}
    ]
    assert not wrong, "\n".join(wrong)


def test_what_decides_imports_nothing_of_the_world() -> None:
    """Raft, the core and the synchronous half of a member see no clock, chance, file or loop."""
    files = [*sources("copycat/raft"), *(PACKAGE / "server" / f"{n}.py" for n in PURE_SERVER)]
    opener = PACKAGE / "_core" / "__init__.py"  # finds the compiled bodies on disk, once
    files += [path for path in sources("copycat/_core") if path != opener]
    wrong = [
        f"{show(path, node)} imports {module}"
        for path in files
        for module, node in imports(path)
        if module.partition(".")[0] in OUTSIDE_WORLD
    ]
    assert not wrong, "\n".join(wrong)
    opening = {"open", "os.open", "mmap.mmap", "io.open"}
    assert not calls(["copycat/_core", "copycat/raft"], lambda _, name: name in opening)


def test_built_in_machines_use_what_users_have() -> None:
    """A file of resources/ imports the machine API and the client base, nothing of our insides."""
    allowed = {"errors", "machine", "types", "scopes", "listeners", "resources"}
    base = {PACKAGE / "resources" / name for name in ("base.py", "access.py")}
    wrong = [
        f"{show(path, node)} imports {module}"
        for path in sources("copycat/resources")
        for module, node in imports(path)
        if path not in base and module.startswith("copycat.")
        and module.split(".")[1] not in allowed
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_built_in_machines_know_no_world() -> None:
    """Inside a state machine nothing is used that could differ between two members."""
    wrong = []
    for path in sources("copycat/resources"):
        for node in tree_of(path).body:
            bases = [ast.unparse(each) for each in getattr(node, "bases", [])]
            if any(re.match(r"(StateMachine|\w+Machine)\b", each) for each in bases):
                used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
                wrong += [f"{show(path, node)} uses {name}" for name in used & OUTSIDE_WORLD]
    assert not wrong, "\n".join(wrong)


# -- sizes and words -------------------------------------------------------------------------------


def test_files_and_lines_stay_readable() -> None:
    """No file has over 600 lines (kernels aside, whose bodies are long by nature), no line 100."""
    wrong = []
    for path in [*sources(*EVERYTHING), *sources("copycat", suffix=".pyx"), ROOT / "setup.py"]:
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > (900 if path.suffix == ".pyx" else 600):
            wrong.append(f"{show(path, len(lines))} is too long")
        wrong += [
            f"{show(path, number)} is too wide"
            for number, line in enumerate(lines, 1)
            if len(re.sub(r"  # (type: ignore|noqa|fmt: )[^#]*$", "", line)) > 100
        ]
    assert not wrong, "\n".join(wrong)


def test_functions_fit_a_screen() -> None:
    """No function has over 60 lines, its docstring aside."""
    wrong = [
        f"{show(path, node)} {node.name}"
        for path in sources(*EVERYTHING)
        for node in ast.walk(tree_of(path))
        if isinstance(node, Function) and length(node) > 60
    ]
    assert not wrong, "\n".join(wrong)


def test_everything_public_is_explained() -> None:
    """Each module, each class and each public function of ours begins with a docstring."""
    wrong = []
    for path in sources(*PRODUCT):
        tree = tree_of(path)
        if ast.get_docstring(tree) is None:
            wrong.append(f"{show(path)} the module")
        wrong += [
            f"{show(path, node)} {node.name}"
            for node, public in definitions(tree)
            if (public or isinstance(node, ast.ClassDef))
            and not is_signature(node) and ast.get_docstring(node) is None
        ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_every_test_says_what_must_be_true() -> None:
    """Each test function has a docstring of its own, and no two in a file share a name."""
    wrong = []
    for path in sources("tests", "benchmarks"):
        if not path.name.startswith("test_"):
            continue
        seen: set[str] = set()
        for node, _ in definitions(tree_of(path)):
            if isinstance(node, Function) and node.name.startswith("test_"):
                if ast.get_docstring(node) is None:
                    wrong.append(f"{show(path, node)} {node.name} says nothing")
                if node.name in seen:
                    wrong.append(f"{show(path, node)} {node.name} hides another test")
                seen.add(node.name)
    assert not wrong, "\n".join(wrong)


# -- what is never done ----------------------------------------------------------------------------


def test_no_code_comes_from_data() -> None:
    """Nothing is unpickled, evaluated or executed, and no wait loses a cancellation."""
    banned = {"eval", "exec", "compile", "asyncio.wait_for", "wait_for", "__import__"}
    wrong = calls(["copycat", "wheels", "benchmarks"], lambda _, name: name in banned)
    wrong += [
        f"{show(path, node)} imports {module}"
        for path in sources(*EVERYTHING)
        for module, node in imports(path)
        if module.partition(".")[0] in {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    ]
    assert not wrong, "\n".join(wrong)


def test_errors_are_caught_by_name() -> None:
    """There is no bare ``except``, not even in a test."""
    wrong = [
        show(path, node)
        for path in sources(*EVERYTHING)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not wrong, "\n".join(wrong)


def test_safety_does_not_vanish_under_optimization() -> None:
    """The library has no ``assert``: ``python -O`` would remove it. It has `invariant`."""
    wrong = [
        show(path, node)
        for path in sources("copycat")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assert)
    ]
    assert not wrong, "\n".join(wrong)
    for path in sources("copycat", suffix=".pyx"):
        assert not re.search(r"^\s*assert\b", path.read_text(encoding="utf-8"), re.M), path


def test_only_the_command_line_prints() -> None:
    """A library speaks by results, errors and logging."""
    wrong = calls(["copycat"], lambda path, name: name == "print" and room_of(path) not in
                  {"cli", "demo", "__main__"})  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_time_and_chance_come_through_the_doors() -> None:
    """No wall clock outside the Clock door, and no draw from the global generator anywhere."""
    walls = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today",
             "datetime.datetime.now", "datetime.date.today"}  # fmt: skip
    clock = PACKAGE / "server" / "clock.py"
    users = {"cli", "demo"}
    wrong = calls(["copycat"], lambda path, name: name in walls and path != clock
                  and room_of(path) not in users)  # fmt: skip
    seeded = {"Random", "SystemRandom", "getstate"}
    unruly = ROOT / "tests" / "testing" / "unruly.py"  # does what machines must not, to be caught
    for path in sources(*EVERYTHING):
        if path == unruly:
            continue
        names = {
            alias.asname or alias.name
            for node in ast.walk(tree_of(path)) if isinstance(node, ast.Import)
            for alias in node.names if alias.name == "random"
        }  # fmt: skip
        wrong += [
            f"{show(path, node)} {ast.unparse(node)}"
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            and node.value.id in names and node.attr not in seeded
        ]  # fmt: skip
        wrong += [show(path, node) for module, node in imports(path) if module == "random"
                  and isinstance(node, ast.ImportFrom)
                  and not {alias.name for alias in node.names} <= seeded]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_order_never_comes_from_a_set() -> None:
    """Raft, machines and appliers never walk a set as it lies: members would disagree."""

    def is_set(node: ast.expr) -> bool:
        return isinstance(node, ast.Set | ast.SetComp) or called(node) in {"set", "frozenset"}

    files = [*sources("copycat/raft"), *(PACKAGE / "server" / f"{n}.py" for n in PURE_SERVER)]
    wrong = [
        show(path, node.iter)
        for path in [*files, *sources("copycat/resources")]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.For | ast.comprehension) and is_set(node.iter)
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_hold_no_state() -> None:
    """What a module holds is constant: no ``global``, and containers have names in capitals."""
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    made = {"list", "dict", "set", "deque", "defaultdict", "Counter", "WeakSet"}
    wrong = []
    for path in sources("copycat"):
        tree = tree_of(path)
        wrong += [show(path, node) for node in ast.walk(tree) if isinstance(node, ast.Global)]
        for node in tree.body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [ast.unparse(each) for each in targets]
            if isinstance(node.value, mutable) or called(node.value) in made:
                wrong += [f"{show(path, node)} {name}" for name in names
                          if not name.isupper() and name != "__all__"]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_no_path_of_somebodys_machine() -> None:
    """What is shipped names no directory of the machine it was written on."""
    places = re.compile(r"(?<![\w.~-])/(work|root|home|tmp|opt)/\w")
    shipped = [*sources(*PRODUCT), *sources("copycat", suffix=".pyx")]
    shipped += [p for p in sorted(ROOT.iterdir()) if p.is_file() and p.name != ".git"]
    wrong = [
        show(path, number)
        for path in shipped
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if places.search(line)
    ]
    assert not wrong, "\n".join(wrong)


# -- the face --------------------------------------------------------------------------------------


def test_the_exports_are_sorted_and_complete() -> None:
    """``copycat.__all__`` is what type checkers see and what is imported on demand, sorted."""
    names = list(copycat.__all__)
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert len(names) == len(set(names))
    (checked,) = (
        node
        for node in tree_of(PACKAGE / "__init__.py").body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname or alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom) and node.module  # a subpackage is no name of its own
        for alias in node.names
    }
    assert set(names) == set(seen)
    assert seen == copycat._HOME_OF


def test_every_package_exports_in_order() -> None:
    """An ``__all__`` anywhere in the package is sorted in the same way and tells the truth."""
    for path in sources("copycat"):
        for node in tree_of(path).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
                order = sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
                assert list(names) == order, show(path, node)


def all_errors() -> list[type[errors.CopycatError]]:
    """Each class of the error tree."""
    found: list[type[errors.CopycatError]] = []
    pending = [errors.CopycatError]
    while pending:
        each = pending.pop()
        found.append(each)
        pending += each.__subclasses__()
    return [each for each in found if each.__module__.startswith("copycat.")]


def test_errors_have_codes_of_their_own() -> None:
    """A code names one class for ever; and all that users may meet is exported."""
    tree = all_errors()
    codes = [each.__dict__.get("code", f"{each.__name__} has none") for each in tree]
    assert all(re.fullmatch(r"CC-[A-Z]+(-[A-Z]+)*", code) for code in codes), codes
    assert len(set(codes)) == len(codes), sorted(codes)
    public = {each.__name__ for each in tree if each.__module__ == errors.__name__}
    assert public - {"InvariantViolated"} <= set(copycat.__all__)  # that one is only ever our bug


def test_the_version_is_written_once() -> None:
    """The metadata read the version from the source: there is no second place to forget."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "copycat.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", copycat.__version__)


# -- the build -------------------------------------------------------------------------------------


def test_every_kernel_is_built_and_has_a_readable_twin() -> None:
    """Each ``.pyx`` is named in setup.py, has its ``.py``, and rebuilds when a header changes."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    names = {path.stem for path in sources("copycat", suffix=".pyx")}
    (listed,) = (
        set(ast.literal_eval(node.value))
        for node in ast.parse(setup).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "KERNELS"
    )
    assert names == listed
    assert all((PACKAGE / "_core" / f"{name}.py").exists() for name in names)
    assert all(path.name in setup for path in sources("copycat", suffix=".h"))


def makefile_target(name: str) -> str:
    """The recipe of a target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:[^\n]*\n((?:\t[^\n]*\n)+)", makefile, re.M)
    assert found is not None, f"the Makefile has no target {name}"
    return found[1]


def test_the_readmes_commands_exist() -> None:
    """Each ``make`` command that a document names is a target of the Makefile."""
    commands: set[str] = set()
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        commands |= set(re.findall(r"^make (\w+)", text, re.M))
        commands |= set(re.findall(r"`make (\w+)`", text))
    assert {"demo", "test"} <= commands
    for command in commands:
        assert makefile_target(command)


def test_the_test_command_tests_both_modes() -> None:
    """`make test` says which mode it expects, twice: a silent fall-back cannot pass for compiled.

    The check itself is in tests/core/test_backend.py, which both runs include.
    """
    modes = {"whole": "= COPYCAT_EXPECT=$$expect", "pure": "=1 COPYCAT_EXPECT=pure"}
    for name, expected in modes.items():
        assert name in makefile_target("test")
        assert f"COPYCAT_PURE{expected}" in makefile_target(f"test-{name}")
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert last == "exec make test"
