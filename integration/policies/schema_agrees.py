#!/usr/bin/env python3
"""Holds policies/mps-policy.schema.json against the program that checks policies, in both ways: the
examples are good and the table's documents are bad for both, and documents made from the schema, at
and just beyond each of its bounds, are judged alike. Which bad documents a schema cannot find is
said in the table, case by case."""

import argparse
import copy
import itertools
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from bad_documents import read_cases

SKIPPED = 125
try:
    import jsonschema
    import yaml
except ImportError as missing:
    print(f"SKIPPED: {missing}; Debian has it as python3-jsonschema and python3-yaml")
    sys.exit(SKIPPED)
if not hasattr(jsonschema, "Draft202012Validator"):
    print("SKIPPED: this python3-jsonschema is too old for 2020-12; 4.0 is the first that is not")
    sys.exit(SKIPPED)

HERE = Path(__file__).resolve().parent
POLICIES = HERE.parent.parent / "policies"


class Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: yes and on are booleans; no dates, no numbers to the base of 60,
    no merge keys; and every key is text, as in JSON."""

    yaml_implicit_resolvers = {}

    def construct_mapping(self, node, deep=False):
        pairs = super().construct_mapping(node, deep=deep)
        return {key if isinstance(key, str) else str(key): pairs[key] for key in pairs}


def add_resolver(tag, pattern, first):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


add_resolver("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""])
add_resolver("bool", r"^(?i:true|false|yes|no|on|off)$", list("tTfFyYnNoO"))
add_resolver("int", r"^[-+]?[0-9]+$", list("-+0123456789"))
add_resolver("float", r"^[-+]?([0-9]+\.[0-9]*|\.[0-9]+)$", list("-+.0123456789"))


def documents(text):
    """The documents of a text, or None where it is not YAML."""
    try:
        return [d for d in yaml.load_all(text, Loader) if d is not None]
    except (yaml.YAMLError, RecursionError, ValueError, TypeError):
        return None


class Program:
    def __init__(self, command):
        self.command = shlex.split(command)

    def errors(self, files, folder):
        """For each file the program's lines about it, and its exit status."""
        done = subprocess.run([*self.command, *files], cwd=folder, capture_output=True, timeout=120)
        lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        return {f: [l for l in lines if l.startswith(f + ":")] for f in files}, done.returncode


class Comparison:
    def __init__(self, schema, program):
        self.validator = jsonschema.Draft202012Validator(schema)
        self.program = program
        self.disagreements = []
        self.counts = {}

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def disagree(self, text):
        self.disagreements.append(text)

    def rejects(self, document):
        return not self.validator.is_valid(document)

    def why(self, document):
        error = next(self.validator.iter_errors(document), None)
        return "good" if error is None else f"{error.json_path}: {error.message[:200]}"


def compare_good_files(comparison, paths):
    for path in paths:
        comparison.count("good files")
        found = documents(path.read_text())
        if not found:
            comparison.disagree(f"{path.name}: has no document")
        for document in found or []:
            if comparison.rejects(document):
                comparison.disagree(f"{path.name}: the schema says {comparison.why(document)}")
        if comparison.program:
            errors, status = comparison.program.errors([path.name], path.parent)
            if status != 0 or errors[path.name]:
                comparison.disagree(f"{path.name}: the program says (status {status})\n  "
                                    + "\n  ".join(errors[path.name]))


def compare_table(comparison, cases, folder):
    for case in cases:
        comparison.count("bad documents")
        found = documents(case.text)
        rejected = any(comparison.rejects(d) for d in found or [])
        if rejected != case.schema_rejects:
            comparison.disagree(f"table, {case.name}: the schema {'rejects' if rejected else 'passes'}"
                                " it, and the table says otherwise")
        if comparison.program:
            (folder / "t.yaml").write_bytes(case.text)
            errors, status = comparison.program.errors(["t.yaml"], folder)
            if status != 1 or not case.agrees_with(errors["t.yaml"]):
                comparison.disagree(
                    f"table, {case.name}: status {status}\n" + "".join(
                        f"  expected {l}\n" for l in case.expected) + "".join(
                        f"  got      {l}\n" for l in errors["t.yaml"]))


# What the schema says in words of its own, by the definition's name: just within, just beyond.
WORDS = {
    "podNamespace": (
        ["team-a", "a", "0", "7-x", "n" * 63, "*", "a--b"],
        ["", "-a", "a-", "n" * 64, "A", "a.b", "a_b", "**", "a b", "\u00e4"]),
    "otherNamespace": (
        ["docker:*", "unit:*", "user:*", "docker:a", "unit:a_b.c-d@e:f\\g", "user:" + "u" * 128],
        ["docker:", "unit:", "user:", "pod:a", "pod:*", "Docker:a", "user:" + "u" * 129, "user:a*",
         "user:a b", "user:a/b", "docker:**"]),
    "device": (
        ["*", "0", "255", "0:0", "255:255", "GPU-8ca1", "MIG-GPU-8ca1/1/0", "GPU-" + "a" * 92],
        ["", "x", "256", "-1", "0:", ":0", "0:256", "256:0", "0:1:2", "GPU-", "gpu-8ca1",
         "GPU-8ca1 ", "GPU-8_ca1", "GPU-" + "a" * 93, "**", "1.5"]),
    "quantity": (
        ["1Mi", "1Pi", "1024Ki", "0.5Gi", "1.5Gi", "2000k", "2M", "20G", "1T", "1P", "1048576",
         "1e9", "129e6", "129E6", "1.5e+9", "12345678901e-3"],
        ["", "lots", "Gi", "-1Gi", "+1Gi", "1.Gi", ".5Gi", "1.2.3Gi", "1,5Gi", "10GB", "10gi",
         "10 Gi", " 10Gi", "10m", "10K", "10E", "1Ei", "1e9Gi", "1e", "1e1234",
         "e9", "10Gi1"]),
    "duration": (
        ["1s", "1000ms", "720h", "1.5h", "10m"],
        ["", "s", "10", "10 s", "-1s", "+1s", "1d", "1h30m", "1.s", ".5h", "10M", "10sec"]),
    "labelKey": (
        ["app", "A", "a.b_c-d", "k" * 63, "example.com/app", "a/b", "p" * 253 + "/app", "0"],
        ["", "-app", "app-", "k" * 64, "/app", "example.com/", "Example.com/app", "a..b/app",
         "a/b/c", "a_b/app", "a b", "p" * 254 + "/app"]),
    "labelValue": (
        ["", "x", "V1.2_3-4", "v" * 63, "true", "12"],
        ["-x", "x-", ".", "v" * 64, "x y", "x/y", "\u00e4"]),
}
OTHER_TYPES = [None, True, 7, 2.5, "x y", [], ["x y"], {}, {"x y": 1}]


class Generator:
    """Documents from the schema: for each property its bounds, other types, other words, missing and
    unknown keys, put into a document that is good otherwise."""

    def __init__(self, schema):
        self.schema = schema
        self.made = []          # [(what, document)]

    def resolve(self, node):
        name = None
        while "$ref" in node:
            name = node["$ref"].rsplit("/", 1)[1]
            node = {**self.schema["$defs"][name], **{k: v for k, v in node.items() if k != "$ref"}}
        return node, name

    def run(self):
        self.visit((), self.schema)
        return self.made

    def base(self, path):
        document = {
            "apiVersion": "mps-supervisor.dev/v1", "kind": "MpsPolicy",
            "metadata": {"namespace": "set-later"},
            "spec": {
                "devices": ["*"],
                "isolation": "shared",
                "client": {"activeThreadPercentage": 20, "pinnedDeviceMemory": "1Gi",
                           "priority": "normal"},
                "quota": {"clients": 4, "activeThreadPercentage": 100, "pinnedDeviceMemory": "4Gi"},
                "overrides": [{"match": {"podLabels": {"app": "notebook"}},
                               "client": {"activeThreadPercentage": 10, "pinnedDeviceMemory": "1Gi",
                                          "priority": "normal"}}],
                "onViolation": "report",
                "onFault": {"clients": "terminate",
                            "quarantine": {"after": 3, "within": "10m", "for": "15m",
                                           "onSuspicion": False}}}}
        spec = document["spec"]
        if path[:2] == ("spec", "quota"):   # so small a client that every quota that counts is enough
            spec["client"] = {"activeThreadPercentage": 0.1, "pinnedDeviceMemory": "1Mi"}
            del spec["overrides"]
        else:                               # and no quota that a large client would exceed
            del spec["quota"]
        if path[:1] == ("metadata",):       # not for all of its values are there pods
            del spec["overrides"]
        return document

    def put(self, path, value, what):
        document = copy.deepcopy(self.base(path))
        if not path:
            document = value
        else:
            at = document
            for step in path[:-1]:
                at = at[step]
            if isinstance(at, list) and path[-1] == len(at):
                at.append(value)
            else:
                at[path[-1]] = value
        self.made.append((f"{dotted(path)} {what}", document))

    def value_at(self, path):
        at = self.base(path)
        for step in path:
            at = at[step]
        return copy.deepcopy(at)

    def visit(self, path, node):
        node, name = self.resolve(node)
        if path:
            for other in OTHER_TYPES:
                self.put(path, other, f"= {other!r}")
        self.bounds(path, node, name)
        if "enum" in node or "const" in node:
            self.words(path, node)
        if node.get("type") == "object":
            self.visit_object(path, node)
        if node.get("type") == "array":
            self.visit_array(path, node)

    def bounds(self, path, node, name, in_quotes=True):
        if name in WORDS:
            for word in itertools.chain(*WORDS[name]):
                self.put(path, word, f"= {word!r}")
        for value in node.get("examples", []) + ([node["default"]] if "default" in node else []):
            self.put(path, value, f"= {value!r}")
        for part in node.get("anyOf", []):
            part, part_name = self.resolve(part)
            # Of an amount in a text, with or without a unit, the schema knows the form only.
            self.bounds(path, part, part_name, in_quotes=name != "quantity")
        step = {"integer": 1, "number": 0.1}.get(node.get("type"))
        if step is None:
            return
        low = node.get("minimum", node.get("exclusiveMinimum"))
        for value in (low - step, low, low + step, node["maximum"] - step, node["maximum"],
                      node["maximum"] + step):
            value = round(value, 1)
            self.put(path, value, f"= {value}")
            if in_quotes:
                self.put(path, str(value), f"= {str(value)!r}")

    def words(self, path, node):
        for word in node.get("enum", [node.get("const")]):
            for value in (word, word + "x", word[:-1], word.upper(), " " + word, ""):
                self.put(path, value, f"= {value!r}")

    def visit_object(self, path, node):
        whole = self.value_at(path)
        for key in node.get("required", []):
            self.put(path, {k: v for k, v in whole.items() if k != key}, f"without {key}")
        self.put(path, {**whole, "colour": "blue"}, "with colour")
        for key, child in node.get("properties", {}).items():
            self.put(path, {**whole, key + "s": whole.get(key)}, f"with {key}s")
            if key not in node.get("required", []):
                self.put(path, {k: v for k, v in whole.items() if k != key}, f"without {key}")
            if path == () and key == "spec":
                self.put(path, {**whole, key: {}}, "with an empty spec")
            self.visit(path + (key,), child)
        if "propertyNames" in node:
            self.visit_labels(path, node)

    def visit_labels(self, path, node):
        for key in itertools.chain(*WORDS[self.resolve(node["propertyNames"])[1]]):
            self.put(path, {key: "x"}, f"with {key!r}")
        for count in (node["minProperties"], node["maxProperties"], node["maxProperties"] + 1):
            self.put(path, {f"l{i}": "x" for i in range(count)}, f"with {count} keys")
        self.visit(path + ("app",), node["additionalProperties"])

    def visit_array(self, path, node):
        entry = self.value_at(path)[0]
        if node.get("uniqueItems"):
            self.put(path, [entry, entry], "with an entry twice")
            def entries(count):
                return [f"GPU-{i}" for i in range(count)]
        else:
            def entries(count):
                return [copy.deepcopy(entry) for _ in range(count)]
        for count in (node.get("minItems", 0), node["maxItems"], node["maxItems"] + 1):
            self.put(path, entries(count), f"with {count} entries")
        self.visit(path + (0,), node["items"])


def dotted(path):
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".") or "document"


def relations(generator):
    """Rules between fields, which the schema has as if and then."""
    for namespace in ("team-a", "*", "docker:*", "unit:*", "user:*", "docker:a", "unit:a", "user:a"):
        for isolation in ("shared", "dedicated"):
            document = generator.base(("metadata",))
            document["metadata"]["namespace"] = namespace
            document["spec"]["isolation"] = isolation
            yield f"{isolation} for {namespace}", document
        document = generator.base(())
        document["metadata"]["namespace"] = namespace
        yield f"overrides for {namespace}", document
    for client in ({}, {"activeThreadPercentage": 50}, {"pinnedDeviceMemory": "1Gi"}, None):
        document = generator.base(("metadata",))
        document["spec"]["quota"] = {"pinnedDeviceMemory": "4Gi"}
        document["spec"].update({"client": client} if client is not None else {})
        if client is None:
            del document["spec"]["client"]
        yield f"a quota of memory with client {client}", document
    for quota, client in itertools.product((0.1, 99.9, 100, 200), ({}, None, {"pinnedDeviceMemory": "1Gi"})):
        document = generator.base(("metadata",))
        document["spec"]["quota"] = {"activeThreadPercentage": quota}
        del document["spec"]["client"]
        if client is not None:
            document["spec"]["client"] = client
        yield f"a quota of {quota} % with client {client}", document


def compare_generated(comparison, generator, folder):
    made = generator.run() + list(relations(generator))
    files, numbers = {}, itertools.count()
    for what, document in made:
        # Each has a namespace of its own where that is not what is tried, so that one run takes all.
        if (isinstance(document, dict) and isinstance(document.get("metadata"), dict)
                and document["metadata"].get("namespace") == "set-later"):
            document["metadata"]["namespace"] = f"n{next(numbers)}"
        name = f"g{len(files):04}.yaml"
        (folder / name).write_text(json.dumps(document))    # which is YAML too
        files[name] = (what, document)
    comparison.counts["generated documents"] = len(files)
    judged = {name: comparison.rejects(document) for name, (_, document) in files.items()}
    comparison.counts["of these bad"] = sum(judged.values())
    if not comparison.program:
        return
    errors = errors_of_each(comparison.program, files, folder)
    for name, (what, document) in files.items():
        if judged[name] != bool(errors[name]):
            said = "\n  ".join(errors[name]) or "good"
            comparison.disagree(f"{what}\n  schema:  {comparison.why(document)}\n  program: {said}")


def errors_of_each(program, files, folder):
    """One run for all that cannot clash, one for each of those whose namespace is what is tried."""
    together = [n for n, (_, d) in files.items() if own_namespace(d)]
    errors, _ = program.errors(together, folder)
    for name in files:
        if name not in errors:
            errors.update(program.errors([name], folder)[0])
    return errors


def own_namespace(document):
    metadata = document.get("metadata") if isinstance(document, dict) else None
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    return isinstance(namespace, str) and namespace[1:].isdigit() and namespace[0] == "n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", metavar="COMMAND",
                        help="the program: COMMAND FILE… prints errors and exits with 1; without it "
                             "only the schema is tried")
    parser.add_argument("--policies", type=Path, default=POLICIES)
    parser.add_argument("--table", type=Path, default=HERE / "bad_documents.txt")
    options = parser.parse_args()

    schema = json.loads((options.policies / "mps-policy.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    comparison = Comparison(schema, Program(options.check) if options.check else None)
    good = [options.policies / "default.yaml", *sorted((options.policies / "examples").glob("*.yaml"))]
    compare_good_files(comparison, good)
    with tempfile.TemporaryDirectory(prefix="policies") as folder:
        compare_table(comparison, read_cases(options.table), Path(folder))
    with tempfile.TemporaryDirectory(prefix="policies") as folder:
        compare_generated(comparison, Generator(schema), Path(folder))

    for text in comparison.disagreements:
        print(f"DISAGREE {text}")
    counts = ", ".join(f"{count} {what}" for what, count in comparison.counts.items())
    print(f"{counts}: {len(comparison.disagreements)} disagreements")
    return 1 if comparison.disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
