"""The house rules that no linter knows, each a small test; what a linter knows stands in pyproject.toml.

A rule that is not a test is a wish: to change a rule, change it here and say why in docs/adr/.
"""

import ast
import importlib
import json
import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from services.contracts import topics
from services.runtime import settings

ROOT = Path(__file__).parents[1]
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
VAGUE_NAMES = {"base", "common", "helper", "helpers", "misc", "util", "utils"}
WAITING = "tests/waiting.py"
ENTROPY = "services/runtime/entropy.py"

# Folders where a variant is one file and one line in a mapping of the folder's __init__.
VARIANTS = {
    "job type": "services.jobs",
    "step kind": "services.executor.steps",
    "export format": "services.executor.formats",
}


@cache
def files() -> tuple[str, ...]:
    """Every file of the tree that git does not ignore, committed or not, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return tuple(sorted(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()))


def python_files(*folders: str) -> list[str]:
    prefixes = tuple(f"{folder}/" for folder in folders)
    return [name for name in files() if name.endswith(".py") and name.startswith(prefixes)]


@cache
def text(name: str) -> str:
    assert (ROOT / name).is_file(), f"{name} is missing"
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(text(name), name)


@cache
def pyproject() -> dict[str, object]:
    return tomllib.loads(text("pyproject.toml"))


def assert_none(found: list[str], rule: str) -> None:
    assert not found, f"{rule}:\n  " + "\n  ".join(found)


# ---------------------------------------------------------------- sizes and names


def test_modules_are_short() -> None:
    long = [
        f"{name}: {lines} lines"
        for name in python_files("services", "tests", "examples")
        if (lines := len(text(name).splitlines())) > MODULE_LINES_MAX
    ]
    assert_none(long, f"a module has at most {MODULE_LINES_MAX} lines; split it by responsibility")


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without the docstring."""
    has_docstring = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if has_docstring else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_are_short() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}: {lines} lines"
        for name in python_files("services", "tests", "examples")
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := body_lines(node)) > FUNCTION_LINES_MAX
    ]
    assert_none(long, f"a function body has at most {FUNCTION_LINES_MAX} lines without its docstring")


def test_names_say_what_is_inside() -> None:
    vague = [name for name in files() if VAGUE_NAMES & {part.split(".")[0] for part in Path(name).parts}]
    assert_none(vague, f"no file or folder is called {', '.join(sorted(VAGUE_NAMES))}")


@pytest.mark.parametrize("service", ["api", "executor", "notifier"])
def test_migrations_are_one_chain_in_the_order_of_their_names(service: str) -> None:
    names = python_files(f"services/{service}/migrations/versions")
    chain = [
        (re.findall(r'^(?:down_)?revision = (?:"(\d+)"|None)', text(name), re.MULTILINE)) for name in names
    ]
    numbers = [Path(name).name.partition("_")[0] for name in names]
    expected = [[number, before] for number, before in zip(numbers, ["", *numbers], strict=False)]
    assert chain == expected, "two migrations follow the same one: number the later one anew"


# ---------------------------------------------------------------- purity


def test_only_entropy_is_excused_from_the_clock_ban() -> None:
    ruff = pyproject()["tool"]["ruff"]["lint"]["per-file-ignores"]  # type: ignore[index]
    excused = [pattern for pattern, codes in ruff.items() if {"TID251", "TID", "ALL"} & set(codes)]
    assert excused == [ENTROPY], f"only {ENTROPY} may read the clock or draw randomness; excused: {excused}"
    ban = re.compile(r"#\s*(ruff:\s*)?noqa:.*\bTID251")
    lines = [
        f"{name}:{number}"
        for name in python_files("services", "tests", "examples")
        for number, line in enumerate(text(name).splitlines(), 1)
        if ban.search(line)
    ]
    assert_none(lines, f"the ban on clocks and randomness (TID251) is lifted in {ENTROPY} only")


def test_only_main_reads_the_environment() -> None:
    readers = [
        f"{name}:{node.lineno}"
        for name in python_files("services")
        if Path(name).name != "__main__.py" and not name.startswith("services/cli/")
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    ]
    assert_none(readers, "a service's __main__ reads settings once; everything else takes values")


def sleeps(module: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "sleep" or called.endswith(".sleep"):
                yield node


def test_tests_wait_for_facts() -> None:
    found = [
        f"{name}:{call.lineno}"
        for name in python_files("tests")
        if name != WAITING
        for call in sleeps(tree(name))
    ]
    assert_none(
        found, f"a test waits for a fact with a deadline (until, until_async of {WAITING}), never sleeps"
    )


def test_every_wait_of_a_test_is_bounded() -> None:
    """Else a run whose process never ends, for whatever reason, never ends either."""
    found = [
        f"{name}:{call.lineno}: {ast.unparse(call)}"
        for name in python_files("tests")
        if not name.startswith("tests/bench/")
        for call in unbounded(tree(name))
    ]
    assert_none(
        found, f"a test gives each wait a timeout (joined and killed of {WAITING} for threads and processes)"
    )


def unbounded(module: ast.Module) -> Iterator[ast.expr]:
    """Calls that wait for a process, thread or future for as long as it takes."""
    awaited = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Await)}
    for node in ast.walk(module):
        if isinstance(node, ast.withitem) and ast.unparse(node.context_expr).startswith("subprocess.Popen("):
            yield node.context_expr
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or id(node) in awaited:
            continue
        if node.func.attr in {"wait", "join", "result", "communicate"} and not (node.args or node.keywords):
            yield node
        programs = {"subprocess.run", "subprocess.check_call", "subprocess.check_output"}
        if ast.unparse(node.func) in programs and "timeout" not in {word.arg for word in node.keywords}:
            yield node


def test_tests_of_real_parts_are_marked() -> None:
    marks = re.compile(r"mark\.(kafka|postgres|slow|faults)\b")
    unmarked = []
    for name in python_files("tests/integration", "tests/e2e", "tests/faults"):
        own = [
            ast.unparse(node.value)
            for node in tree(name).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        ]
        if Path(name).name.startswith("test_") and not any(marks.search(value) for value in own):
            unmarked.append(name)
    assert_none(
        unmarked, "`pytestmark` names kafka, postgres, slow or faults, or `make test-fast` would run it"
    )


# ---------------------------------------------------------------- what must be closed


def closed(module: ast.Module) -> Iterator[ast.expr]:
    """What is the subject of a `with`, or the value of an attribute that a method of its class closes."""
    for node in ast.walk(module):
        if isinstance(node, ast.With):
            yield from (item.context_expr for item in node.items)
        elif isinstance(node, ast.ClassDef):
            parts = list(ast.walk(node))
            called = {ast.unparse(part.func) for part in parts if isinstance(part, ast.Call)}
            for part in parts:
                if isinstance(part, ast.Assign) and f"{ast.unparse(part.targets[0])}.close" in called:
                    yield part.value


def test_every_admin_client_is_closed() -> None:
    made = re.compile(r"(\w+\.)?Admin(Client)?")
    left = [
        f"{name}:{node.lineno}"
        for name in python_files("services", "tests", "examples")
        if "Admin" in text(name)
        for node in set(ast.walk(tree(name))) - set(closed(tree(name)))
        if isinstance(node, ast.Call) and made.fullmatch(ast.unparse(node.func))
    ]
    assert_none(
        left,
        "an admin client is the subject of a `with`, or its owner closes it: one that is merely dropped may"
        " be freed on its own thread, which aborts the process (see Admin in services/runtime/kafka.py)",
    )


def test_clients_that_are_kept_are_replaced_after_a_failure() -> None:
    kept = [
        f"{name}:{node.lineno}"
        for name in python_files("services")
        if name not in ("services/runtime/topics.py", "services/cli/log.py")  # a command ends soon
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Assign) and re.match(r"(\w+\.)?Admin(Client)?\(", ast.unparse(node.value))
    ]
    assert_none(
        kept, "a process that runs for long asks through Topics of services/runtime/topics.py, which says why"
    )


# ---------------------------------------------------------------- dependencies


def requirements(name: str) -> dict[NormalizedName, Requirement]:
    lines = (line.split("#")[0].strip() for line in text(f"requirements/{name}").splitlines())
    parsed = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    return {canonicalize_name(one.name): one for one in parsed}


def pins(name: str) -> dict[NormalizedName, str]:
    """Project -> version; refuses an entry without a hash."""
    found = {}
    for entry in re.split(r"\n(?=[a-z0-9])", text(f"requirements/{name}")):
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", entry):
            assert "--hash=sha256:" in entry, f"requirements/{name}: {match.group(1)} has no hash; make lock"
            found[canonicalize_name(match.group(1))] = match.group(2)
    return found


@pytest.mark.parametrize("level", ["runtime", "dev", "bench"])
def test_locks_are_current(level: str) -> None:
    locked = pins(f"{level}.txt")
    stale = [
        f"{wanted} (locked: {locked.get(project, 'nothing')})"
        for project, wanted in requirements(f"{level}.in").items()
        if project not in locked or not wanted.specifier.contains(locked[project])
    ]
    assert_none(stale, f"requirements/{level}.txt does not match {level}.in; run `make lock`")


def test_development_runs_what_production_runs() -> None:
    runtime, dev = pins("runtime.txt"), pins("dev.txt")
    differing = [f"{p}: runtime {v}, dev {dev.get(p)}" for p, v in runtime.items() if dev.get(p) != v]
    assert_none(differing, "runtime.txt and dev.txt pin the same versions; run `make lock`")


# ---------------------------------------------------------------- settings and documents


def test_env_example_names_every_setting_and_no_other() -> None:
    written = set(re.findall(r"^#?\s*(MILLSTREAM_[A-Z0-9_]+)=", text("deploy/env.example"), re.MULTILINE))
    sources = f"{settings.PREFIX}{settings.Sources.prefix}"
    documented = {key for key in written if not key.startswith(sources)}
    assert written > documented, f"deploy/env.example shows no {sources}<NAME>"
    wanted = {key for section in settings.SECTIONS for key in settings.keys_of(section)}
    assert_none(sorted(wanted - documented), "settings missing from deploy/env.example")
    assert_none(sorted(documented - settings.known_keys()), "deploy/env.example names what is no setting")


def variants(package: str) -> list[str]:
    module = importlib.import_module(package)
    tables = [v for k, v in vars(module).items() if k.isupper() and isinstance(v, Mapping)]
    assert tables, f"{package}/__init__.py has its variants in mappings in capitals"
    return [str(name) for table in tables for name in table]


@pytest.mark.parametrize("kind", VARIANTS)
def test_readme_names_every_variant(kind: str) -> None:
    rows = [line for line in text("README.md").splitlines() if line.startswith("|")]
    unnamed = [name for name in variants(VARIANTS[kind]) if not any(f"`{name}`" in row for row in rows)]
    assert_none(unnamed, f"a table of README.md names every {kind} of {VARIANTS[kind]} in backticks")


def targets() -> dict[str, str]:
    """Target of the Makefile -> its help, empty if it has none."""
    return dict(re.findall(r"^([a-z][a-z-]*):(?!=)(?:.*?## (.+))?", text("Makefile"), re.MULTILINE))


def test_make_help_lists_every_target() -> None:
    assert_none([name for name, said in targets().items() if not said], "a target has a `## comment`")


def test_documents_name_targets_that_exist() -> None:
    pages = [name for name in files() if name.endswith(".md")]
    unknown = [
        f"{page}: make {target}"
        for page in pages
        for target in re.findall(r"(?:`|^\$? *)make ([a-z][a-z-]*)", text(page), re.MULTILINE)
        if target not in targets()
    ]
    assert_none(unknown, "a command in a document is a target of the Makefile")


def test_readme_and_ci_run_the_same_commands() -> None:
    for command in ("make demo", "make test"):
        assert command in text("README.md"), f"README.md shows `{command}`"
    assert re.search(r"\bmake test\b", text(".ci/run")), ".ci/run runs README's test command, `make test`"


# ---------------------------------------------------------------- schemas and topics


def schemas() -> list[str]:
    return [name for name in files() if name.startswith("schemas/") and name.endswith(".avsc")]


def test_manifest_names_every_schema_once() -> None:
    entries = json.loads(text("schemas/manifest.json"))["schemas"]
    named = sorted(f"schemas/{entry['file']}" for entry in entries)
    assert named == schemas(), "schemas/manifest.json and the .avsc files differ"
    twice = [str(i) for i, count in Counter(entry["id"] for entry in entries).items() if count > 1]
    assert_none(twice, "an id of schemas/manifest.json is used once, for ever")


def test_every_schema_has_examples_and_every_example_a_schema() -> None:
    shown = {Path(n).parts[2] for n in files() if n.startswith("schemas/examples/") and n.endswith(".json")}
    known = {Path(name).stem for name in schemas()}
    assert_none(sorted(known - shown), "schemas/examples/<schema>/ has no .json for")
    assert_none(sorted(shown - known), "schemas/examples/ has a folder without a schema")


def literals(folder: str) -> set[str]:
    return {
        node.value
        for name in python_files(folder)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_topic_is_read_by_the_services_it_names() -> None:
    declared = topics.parse(text("schemas/topics.yaml"))
    unread = [
        f"{topic.name}: {consumer} does not read it"
        for topic in declared
        for consumer in topic.consumers
        if topic.name not in literals(f"services/{consumer.split('-')[0]}")
    ]
    assert_none(unread, "a consumer named in schemas/topics.yaml names the topic in its code")
    orphans = [t.name for t in declared if not t.consumers and not t.name.endswith(topics.DEAD_LETTER_SUFFIX)]
    assert_none(orphans, "a topic that nothing consumes; it joins with the issue that needs it")


# ---------------------------------------------------------------- what must not be in the tree


def test_no_file_names_a_machine_or_a_package_index() -> None:
    # Written so that no pattern finds itself.
    patterns = (
        r"(?<![\w.}])/(work|root|home)/",
        r"pypi[.]org|python[h]osted|npmjs[.]org|repo1?[.]maven",
        r"index[-_]ur[l]|find[-]links *=|<repositor[yi]",
        r'registry *[=:] *"?http|"resolved": *"http',
    )
    unwanted = re.compile("|".join(patterns))
    found = [
        f"{name}:{number}: {match.group(0)}"
        for name in files()
        if Path(name).suffix not in {".png", ".gz"}
        for number, line in enumerate(text(name).splitlines(), 1)
        if (match := unwanted.search(line))
    ]
    assert_none(found, "a path of one machine, or the address of a package index, is in the tree")
