"""Record the names of TensorRT's Python API at a tag of its open-source repository, from the pybind11 sources.

    python tests/build/record_surface.py GIT_DIRECTORY v10.3.0 > tests/build/surfaces/tensorrt-10.3.txt

Facts only: `Class`, `Class.member` and functions, one a line, sorted; inherited members are listed with the class.
"""

from __future__ import annotations

import re
import subprocess
import sys

CLASS = re.compile(
    r"(?:py::(class_|enum_)<((?:[^<>;]|<(?:[^<>;]|<[^<>;]*>)*>)*)>|py::bind_vector<[^;]*?>)\s*(\w*)\s*[({]\s*"
)
SCOPE = re.compile(r"(\w+)\s*,\s*\"(\w+)\"")
MEMBER = re.compile(r"(?<!\bm)\.\s*(?:def|def_static|def_property|def_property_readonly|def_readwrite|def_readonly|"
                    r"def_property_static|def_property_readonly_static|value)\(\s*\"(\w+)\"")  # fmt: skip
FUNCTION = re.compile(r"\bm\.(?:def|attr)\(\s*\"(\w+)\"")


def sources(git: str, tag: str) -> dict[str, str]:
    def run(*arguments: str) -> str:
        return subprocess.run(
            ["git", f"--git-dir={git}", *arguments], capture_output=True, text=True, check=True
        ).stdout

    paths = run("ls-tree", "-r", "--name-only", tag, "python/src", "python/packaging/bindings_wheel").splitlines()
    return {path: run("show", f"{tag}:{path}") for path in paths if path.endswith((".cpp", "tensorrt/__init__.py"))}


def names(files: dict[str, str]) -> set[str]:
    found: set[str] = set()
    members: dict[str, set[str]] = {}
    python_of: dict[str, str] = {}  # C++ type to Python name, for base classes
    bases: dict[str, list[str]] = {}
    for path, text in files.items():
        if path.endswith(".py"):
            # Its last lines copy the members of ILogger.Severity to Logger.
            found |= set(re.findall(r"^def ([a-z]\w+)", text, re.MULTILINE)) | {"__version__", "Logger.Severity"}
            continue
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
        text = re.sub(r"#if ENABLE_INETWORK_SERIALIZE.*?#endif", "", text, flags=re.DOTALL)
        found |= set(FUNCTION.findall(text))
        starts = list(CLASS.finditer(text))
        variables: dict[str, str] = {}
        for index, start in enumerate(starts):
            scope = SCOPE.match(text, start.end())
            if scope is None:
                continue
            outer = None if scope[1] == "m" else variables[scope[1]]
            name = scope[2] if outer is None else f"{outer}.{scope[2]}"
            types = re.split(r",\s*(?![^<]*>)", start[2] or "")
            python_of[types[0].strip()] = name
            bases[name] = [kind.strip() for kind in types[1:]]
            variables[start[3]] = name
            stop = starts[index + 1].start() if index + 1 < len(starts) else len(text)
            # A binding kept in a variable is gone on with after what lies inside it.
            later = outer and re.compile(rf"\b{scope[1]}\s*\.def").search(text, start.end(), stop)
            end = later.start() if later else stop
            members.setdefault(name, set()).update(MEMBER.findall(text, start.end(), end))
            if outer is not None:
                members[outer] |= {scope[2], *MEMBER.findall(text, end, stop)}
                if "export_values" in text[start.end() : end]:
                    members[outer] |= members[name]
    for name in members:
        found.add(name)
        waiting, seen = [name], set()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            found |= {f"{name}.{member}" for member in members.get(current, ()) if not member.startswith("__")}
            waiting += [python_of[base] for base in bases.get(current, ()) if base in python_of]
    return found


if __name__ == "__main__":
    print("\n".join(sorted(names(sources(sys.argv[1], sys.argv[2])))))
