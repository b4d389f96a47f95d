"""Finds import circles between the files of one crate.

A file depends on another one if its code names an item that the other file defines: in a `use` declaration, or in a path such as
`super::Item` or `module::Item`. A path is followed through re-exports to the file with the definition, so a parent that declares
`mod child;` and re-exports its items is no dependency of the child; an item that the parent itself defines is one. Tests
(`#[cfg(test)]`) are left out.

Not seen: items that are reached without being named, such as methods and trait implementations, and macros. A name that a macro
generates counts as defined where the path ends.
"""

import dataclasses
import pathlib
import re
import tempfile

TOKEN = re.compile(
    r"""
      (?P<skip>\s+|//[^\n]*)
    | (?P<comment>/\*)
    | (?P<raw>(?:b|c)?r(?P<hashes>\#*)")
    | (?P<string>(?:b|c)?"(?:[^"\\]|\\.)*")
    | (?P<char>b?'(?:[^'\\]|\\(?:u\{[^}]*\}|x..|.))')
    | (?P<lifetime>'\w+)
    | (?P<ident>(?:r\#)?[A-Za-z_]\w*)
    | (?P<number>\d[\w.]*?(?=\.\.|\W|$))
    | (?P<punct>::|.)
    """,
    re.VERBOSE | re.DOTALL,
)
OPEN, CLOSE = {"{", "(", "["}, {"}", ")", "]"}
# Items that end with `;`, and items that end with the block that follows.
TO_SEMICOLON = {"use", "static", "type", "extern"}
TO_BLOCK = {"fn", "impl", "struct", "enum", "union", "trait", "mod", "unsafe", "async", "macro_rules"}
DEFINES = {"fn", "struct", "enum", "union", "trait", "type", "const", "static"}
KEYWORDS = {"crate", "self", "super"}


def tokens_of(text):
    """The identifiers and punctuation of a file, without comments and literals."""
    found, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        at = match.end()
        if match["comment"]:
            depth = 1
            while depth and at < len(text):
                mark = re.compile(r"/\*|\*/").search(text, at)
                if mark is None:
                    return found
                depth += 1 if mark[0] == "/*" else -1
                at = mark.end()
        elif match["raw"]:
            end = text.find('"' + match["hashes"], at)
            at = len(text) if end < 0 else end + 1 + len(match["hashes"])
        elif match["ident"]:
            found.append(match["ident"].removeprefix("r#"))
        elif match["punct"]:
            found.append(match["punct"])
    return found


def group_end(tokens, at):
    """The index behind the group that opens at `at`."""
    depth = 0
    while at < len(tokens):
        depth += (tokens[at] in OPEN) - (tokens[at] in CLOSE)
        at += 1
        if depth == 0:
            break
    return at


def item_end(tokens, at):
    """The index behind the item, field or statement at `at`."""
    while at < len(tokens) and tokens[at] == "#":
        at = group_end(tokens, at + 1)
    if tokens[at : at + 1] == ["pub"]:
        at += 1
        if tokens[at : at + 1] == ["("]:
            at = group_end(tokens, at)
    first = tokens[at] if at < len(tokens) else ""
    semicolon = first in TO_SEMICOLON or first == "const" and tokens[at + 1 : at + 2] != ["fn"]
    block = first in TO_BLOCK or first == "const" and not semicolon
    while at < len(tokens):
        token = tokens[at]
        if token in CLOSE:
            return at
        if token in OPEN:
            at = group_end(tokens, at)
            if token == "{" and not semicolon:
                return at
            continue
        at += 1
        if token == ";" or token == "," and not (semicolon or block):
            return at
    return at


def is_test(attribute):
    return "cfg" in attribute and "test" in attribute and "not" not in attribute


def without_tests(tokens):
    kept, at = [], 0
    while at < len(tokens):
        if tokens[at] == "#" and tokens[at + 1 : at + 2] == ["["]:
            end = group_end(tokens, at + 1)
            # Other attributes cannot name items; `#[path]` would, and is not used.
            at = item_end(tokens, end) if is_test(tokens[at:end]) else end
            continue
        kept.append(tokens[at])
        at += 1
    return kept


@dataclasses.dataclass
class Import:
    """One name that a `use` declaration brings into a module."""

    path: list
    reexport: bool


@dataclasses.dataclass
class Module:
    """A module of a crate, in the file that holds its items."""

    file: str
    path: tuple
    parent: "Module | None" = None
    children: dict = dataclasses.field(default_factory=dict)
    defined: set = dataclasses.field(default_factory=set)
    imports: dict = dataclasses.field(default_factory=dict)
    globs: list = dataclasses.field(default_factory=list)
    # Paths of two or more segments, and single identifiers, outside of `use` declarations.
    paths: list = dataclasses.field(default_factory=list)
    words: set = dataclasses.field(default_factory=set)


def use_tree(tokens, at, prefix, leaves):
    """Reads a tree of a `use` declaration; each leaf is a path and the name that it gets."""
    path = list(prefix)
    while at < len(tokens):
        token = tokens[at]
        if token == "{":
            at += 1
            while tokens[at] != "}":
                at = use_tree(tokens, at, path, leaves)
                at += tokens[at] == ","
            return at + 1
        if token == "*":
            leaves.append((path, "*"))
            return at + 1
        if token == "as":
            leaves.append((path, tokens[at + 1]))
            return at + 2
        if token in {",", "}", ";"}:
            break
        if token == "self" and prefix and path == list(prefix):
            leaves.append((path, tokens[at + 2] if tokens[at + 1] == "as" else path[-1]))
            return at + (3 if tokens[at + 1] == "as" else 1)
        if token != "::":
            path.append(token)
        at += 1
    leaves.append((path, path[-1]))
    return at


class Crate:
    """The modules of one crate and what they name."""

    def __init__(self, source, root_file):
        self.source = source
        self.modules = []
        self.root = self.add(source / root_file, (), None, source)

    def add(self, file, path, parent, folder):
        module = Module(str(file.relative_to(self.source)), path, parent)
        self.modules.append(module)
        self.read(module, without_tests(tokens_of(file.read_text())), folder)
        return module

    def read(self, module, tokens, folder):
        at, depth = 0, 0
        while at < len(tokens):
            token, after = tokens[at], tokens[at + 1 : at + 3]
            depth += (token == "{") - (token == "}")
            if token == "pub" and after[:1] == ["("]:
                at = group_end(tokens, at + 1)
                if tokens[at : at + 1] == ["use"]:
                    at = self.use(module, tokens, at + 1, reexport=True)
            elif token == "pub" and after[:1] == ["use"]:
                at = self.use(module, tokens, at + 2, reexport=True)
            elif token == "use" and after[:1] != ["<"]:  # not `impl Trait + use<'a>`
                at = self.use(module, tokens, at + 1, reexport=False)
            elif token == "mod" and after[1:] == [";"]:
                self.child(module, after[0], folder)
                at += 3
            elif token == "mod" and after[1:] == ["{"]:
                end = group_end(tokens, at + 2)
                child = Module(module.file, module.path + (after[0],), module)
                self.modules.append(child)
                module.children[after[0]] = child
                self.read(child, tokens[at + 3 : end - 1], folder / after[0])
                at = end
            elif token in DEFINES and depth == 0 and after and re.match(r"\w", after[0]) and after[0] != "fn":
                module.defined.add(after[0])
                at += 2
            elif re.match(r"[A-Za-z_]", token):
                path = [token]
                at += 1
                while tokens[at : at + 1] == ["::"] and re.match(r"[A-Za-z_]", (tokens[at + 1 : at + 2] or ["-"])[0]):
                    path.append(tokens[at + 1])
                    at += 2
                module.words.add(token)
                if len(path) > 1:
                    module.paths.append(path)
            else:
                at += 1

    def use(self, module, tokens, at, reexport):
        leaves = []
        end = use_tree(tokens, at, [], leaves)
        for path, name in leaves:
            if name == "*":
                module.globs.append(path)
            else:
                module.imports[name if name != "_" else f"_{'::'.join(path)}"] = Import(path, reexport)
        return end

    def child(self, module, name, folder):
        for file, inner in [(folder / f"{name}.rs", folder / name), (folder / name / "mod.rs", folder / name)]:
            if file.is_file():
                module.children[name] = self.add(file, module.path + (name,), module, inner)
                return

    def resolve(self, module, path, seen=()):
        """The module that defines the first item of the path, with its name; or None if the path leads out of the crate."""
        if (module.path, tuple(path)) in seen or not path:
            return None
        seen = (*seen, (module.path, tuple(path)))
        first, rest = path[0], path[1:]
        if first == "crate":
            return self.inside(self.root, rest, seen)
        if first == "self":
            return self.inside(module, rest, seen)
        if first == "super":
            return self.inside(module.parent, rest, seen) if module.parent else None
        if first in module.children or first in module.imports:
            return self.inside(module, path, seen)
        return None

    def inside(self, module, path, seen):
        if not path:
            return None
        first, rest = path[0], path[1:]
        if first == "super":
            return self.inside(module.parent, rest, seen) if module.parent else None
        if first in module.children:
            return self.inside(module.children[first], rest, seen) if rest else None
        if first in module.defined:
            return module, first
        if first in module.imports:
            return self.resolve(module, module.imports[first].path + rest, seen)
        for glob in module.globs:
            found = self.resolve(module, [*glob, first, *rest], seen)
            if found and first in found[0].defined:
                return found
        return module, first

    def dependencies(self):
        """(file, other file) -> the names that the first takes from the second."""
        edges = {}

        def edge(module, found):
            if found and found[0].file != module.file:
                edges.setdefault((module.file, found[0].file), set()).add(found[1])

        for module in self.modules:
            for name, imported in module.imports.items():
                if not imported.reexport or name in module.words:
                    edge(module, self.resolve(module, imported.path))
            for path in module.paths:
                edge(module, self.resolve(module, path))
            for glob in module.globs:
                for word in module.words:
                    found = self.resolve(module, [*glob, word])
                    if found and word in found[0].defined:
                        edge(module, found)
        return edges


def components(edges):
    """The strongly connected components of more than one file (Tarjan)."""
    graph = {}
    for source, target in sorted(edges):
        graph.setdefault(source, []).append(target)
        graph.setdefault(target, [])
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            members = set()
            while node not in members:
                members.add(stack.pop())
            if len(members) > 1:
                found.append(frozenset(members))

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(found, key=sorted)


def circles_of(source):
    """The circles of the crate in this source folder, each with its edges."""
    edges = {}
    for root in ("lib.rs", "main.rs"):
        if (source / root).is_file():
            edges |= Crate(source, root).dependencies()
    inside = lambda circle: {pair: names for pair, names in edges.items() if circle.issuperset(pair)}
    return {circle: inside(circle) for circle in components(edges)}


def described(edges):
    lines = [f"    {a} -> {b}: {', '.join(sorted(names))}" for (a, b), names in sorted(edges.items())]
    return "\n".join(lines)


PLANTED = {
    "use declarations": ({"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::B; pub struct A;", "b.rs": "use super::a::{self, A}; pub struct B;"}, {"a.rs", "b.rs"}),
    "qualified paths": ({"lib.rs": "mod a; mod b;", "a.rs": "pub fn f() { crate::b::g() }", "b.rs": "use crate::a; pub fn g() { a::f() }"}, {"a.rs", "b.rs"}),
    "an item of the parent": ({"lib.rs": "mod a; use a::A; pub struct P(A);", "a.rs": "pub struct A; fn f(_: super::P) {}"}, {"lib.rs", "a.rs"}),
    "through a re-export": ({"lib.rs": "mod a; mod b; pub use b::B;", "a.rs": "use crate::B; pub struct A;", "b.rs": "use crate::a::A; pub struct B;"}, {"a.rs", "b.rs"}),
    "three files in a folder": ({"lib.rs": "mod d;", "d/mod.rs": "mod a; mod b; mod c;", "d/a.rs": "use super::b::B; pub struct A;", "d/b.rs": "use super::c::C; pub struct B;", "d/c.rs": "use crate::d::a::A; pub struct C;"}, {"d/a.rs", "d/b.rs", "d/c.rs"}),
    "a glob": ({"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::*; pub struct A(B);", "b.rs": "pub struct B; fn f(_: crate::a::A) {}"}, {"a.rs", "b.rs"}),
    "a re-export that the parent uses": ({"lib.rs": "mod a; pub use a::A; pub const N: u8 = 1; fn f(_: A) {}", "a.rs": "pub struct A([u8; crate::N as usize]);"}, {"lib.rs", "a.rs"}),
}
HARMLESS = {
    "a parent that only re-exports": {"lib.rs": "mod a; mod b; pub use a::A; pub use b::B;", "a.rs": "use crate::B; pub struct A;", "b.rs": "pub struct B;"},
    "constants of a parent that only re-exports": {"lib.rs": "mod a; pub use a::A; pub const N: u8 = 1;", "a.rs": "pub struct A([u8; crate::N as usize]);"},
    "tests": {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::B; pub struct A;", "b.rs": "pub struct B; #[cfg(test)] mod tests { use crate::a::A; } #[cfg(test)] use crate::a::A; "},
    "comments and strings": {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::B; pub struct A;", "b.rs": "pub struct B; // crate::a::A\n/* crate::a::A /* */ */ const S: &str = r#\"\" crate::a::A\"#; const C: char = '\"'; const T: &str = \"crate::a::A\";"},
    "visibility": {"lib.rs": "mod d;", "d/mod.rs": "mod a; use a::A; pub struct P(A);", "d/a.rs": "pub(in crate::d) struct A;"},
}


def self_test():
    """Plants circles and checks that exactly they are found."""
    for expected, cases in ((True, PLANTED.items()), (False, HARMLESS.items())):
        for name, case in cases:
            files, members = case if expected else (case, None)
            with tempfile.TemporaryDirectory() as folder:
                for file, text in files.items():
                    path = pathlib.Path(folder) / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text)
                found = circles_of(pathlib.Path(folder))
            if set(found) != ({frozenset(members)} if expected else set()):
                raise SystemExit(f"self-test: {name}: found {[sorted(circle) for circle in found]}")
    return len(PLANTED) + len(HARMLESS)
