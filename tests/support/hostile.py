"""The catalogue of hostile manifests and trees: what is in the repository, and what is to come of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from support.repositories import AUTHOR

#: One entry of a tree: its content, or mode and content.
Entry = bytes | tuple[str, bytes]


@dataclass(frozen=True)
class Case:
    """Files of one case by path below its folder, the codes that each must have, and the tasks that come of it."""

    files: Mapping[bytes, Entry]
    codes: Mapping[str, set[str]] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  #: name to members of the stored spec
    anything: bool = False  #: any error will do: the reading library words it
    more: bool = False  #: there may be other codes, too


def manifest(name: str, spec: str = "", head: str = "") -> bytes:
    """Write a task; `spec` are lines of its spec, `head` lines before all."""
    text = f"{head}apiVersion: cron-observer/v1\nkind: Task\nmetadata: {{name: {name}}}\n"
    text += "spec:\n  schedule: {every: 1h}\n"
    return (text + "".join(f"  {line}\n" for line in spec.splitlines())).encode("utf-8", "surrogatepass")


def scheduled(name: str, schedule: str) -> bytes:
    """Write a task with another schedule."""
    return manifest(name).replace(b"{every: 1h}", schedule.encode())


def one(content: bytes, *codes: str) -> Case:
    """Make a case of one file that has exactly these codes and makes no task."""
    return Case({b"a.yaml": content}, {"a.yaml": set(codes)})


def good(name: str, content: bytes | None = None, *codes: str, **spec: Any) -> Case:
    """Make a case of one file that makes a task; `codes` are warnings."""
    return Case({b"a.yaml": content or manifest(name)}, {"a.yaml": set(codes)} if codes else {}, {name: spec})


def crons(number: str, code: str | Mapping[str, str], *expressions: str) -> Case:
    """Make a case of a file for each cron expression, all refused with `code`."""
    files = {
        f"{n}.yaml".encode(): scheduled(f"{number}-{n}", f'{{cron: "{text}"}}') for n, text in enumerate(expressions)
    }
    codes = {f"{n}.yaml": {code if isinstance(code, str) else code[text]} for n, text in enumerate(expressions)}
    return Case(files, codes)


def several(number: str, code: str, *contents: bytes) -> Case:
    """Make a case of several files, all with the same code."""
    names = [f"{n}.yaml" for n in range(len(contents))]
    return Case(
        {name.encode(): content for name, content in zip(names, contents, strict=True)},
        {name: {code} for name in names},
    )


def specs(number: str, code: str, *lines: str) -> Case:
    """Make a case of a file for each line of a spec, all refused with `code`."""
    return several(number, code, *(manifest(f"{number}-{n}", line) for n, line in enumerate(lines)))


def later(number: str, *lines: str) -> Case:
    """Make a case of fields that no schema has yet: they are refused as what they are, unknown."""
    return replace(specs(number, "CO1301", *lines), more=True)


def beside(case: Case, **lines: str) -> Case:
    """Add a file for each further line of a spec, under the code with which it is refused."""
    files = {f"{code}.yaml".encode(): manifest(code.lower(), line) for code, line in lines.items()}
    codes = {f"{code}.yaml": {code} for code in lines}
    return replace(case, files={**case.files, **files}, codes={**case.codes, **codes})


LAUGHS = "".join(
    f"{chr(97 + n)}: &{chr(97 + n)} [{', '.join([f'*{chr(96 + n)}' if n else 'lol'] * 9)}]\n" for n in range(9)
).encode()
MERGES = b"a: &a {x: 1}\n" + b"".join(
    f"b{n}: &b{n} {{<<: [*{'a' if not n else f'b{n - 1}'}, *{'a' if not n else f'b{n - 1}'}]}}\n".encode()
    for n in range(29)
)
DEEP = b"".join(b"  " * n + b"a:\n" for n in range(2_000))[: 250 * 1024]
MARKED = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"

#: Every case that is files of one repository.
CASES: dict[str, Case] = {
    "M1": one(manifest("m1", "timeout: 1h\ntimeout: 2h"), "CO1104"),
    "M2": one(manifest("m2", 'payload: {1: a, "1": b, 1.0: c, true: d}'), "CO1109"),
    "M3": one(b"apiVersion: cron-observer/v1\nkind: Task\nmetadata:\n\tname: m3\n", "CO1103"),
    "M4": good("m4", b"\xef\xbb\xbf" + manifest("m4")),
    "M5": one(manifest("m5").decode().encode("utf-16"), "CO1002"),
    "M6": one(manifest("m6", "description: x\0y"), "CO1003"),
    "M7": one(manifest("m7", 'description: "x\\0y"'), "CO1115"),
    "M8": one(manifest("m8", 'description: "\\e[31m"'), "CO1115"),
    "M9": Case({b"a.yaml": manifest("m9", 'description: "\\ud800"')}, anything=True),
    "M10": one(manifest("m10").replace(b"m10", b"m\xff10"), "CO1002"),
    "M11": Case(
        {
            b"paragraph.yaml": manifest('"m11\\u2029x"'),
            b"line.yaml": manifest('"m11\\u2028x"'),
            b"next.yaml": manifest('"m11\\N"'),
        },
        {"paragraph.yaml": {"CO1206"}, "line.yaml": {"CO1206"}, "next.yaml": {"CO1115"}},
    ),
    "M12": Case(
        {
            b"name.yaml": manifest('"m12\\u202egp"'),
            b"zero.yaml": manifest('"m12\\u200bx"'),
            b"text.yaml": manifest("m12", 'payload: {command: "rm \\u202egp.sh"}'),
        },
        {"name.yaml": {"CO1206", "CO1117"}, "zero.yaml": {"CO1206"}, "text.yaml": {"CO1117"}},
        {"m12": {"payload": {"command": "rm \u202egp.sh"}}},
    ),
    "M13": one(manifest("р\u0430ypal"), "CO1206"),
    "M14": one(manifest("m14", f"priority: {'9' * 5_000}"), "CO1116"),
    "M15": one(manifest("m15", f"priority: 0x{'f' * 5_000}"), "CO1116"),
    "M16": specs("m16", "CO1116", *(f"payload: {{a: {text}}}" for text in ("1.0e+999", ".inf", "-.INF", ".nan"))),
    "M17": specs("m17", "CO1308", "timeout: 1:30"),
    "M18": good(
        "m18",
        manifest("m18", "payload: {a: 0777, b: 08, c: 1_000, d: 10}"),
        payload={"a": "0777", "b": "08", "c": "1_000", "d": 10},
    ),
    "M19": good(
        "m19",
        manifest("m19", "payload: {a: no, b: on, c: y, d: true}"),
        payload={"a": "no", "b": "on", "c": "y", "d": True},
    ),
    "M20": good("m20", manifest("m20", "payload: {a: 2001-01-01}"), payload={"a": "2001-01-01"}),
    "M21": one(scheduled("m21", "{at: 2001-99-99}"), "CO3014"),
    "M22": good("m22", manifest("m22", "payload: {a: =}"), payload={"a": "="}),
    "M23": one(manifest("m23", 'payload: !!python/object/apply:os.system ["touch /CANARY"]'), "CO1107"),
    "M24": Case(
        {
            b"a.yaml": b"%TAG !p! tag:yaml.org,2002:python/\n---\n"
            + manifest("m24", 'payload: !p!object/apply:os.system ["touch /CANARY"]')
        },
        anything=True,
    ),
    "M25": Case({b"a.yaml": b"%YAML 9.9\n---\n" + manifest("m25")}, anything=True),
    "M26": specs(
        "m26", "CO1107", *(f"payload: {text}" for text in ("!Foo a", "!!set {a}", "!!omap []", '!!binary "$$$"'))
    ),
    "M27": one(manifest("m27", "payload: {a: &x 1, b: *x}"), "CO1105"),
    "M28": Case({b"a.yaml": LAUGHS}, anything=True),
    "M29": Case({b"a.yaml": MERGES}, anything=True),
    "M30": one(manifest("m30", "payload: &a [*a]"), "CO1105"),
    "M31": Case(
        {f"{n}.yaml".encode(): text * (30_000 // len(text)) for n, text in enumerate((b"[", b"{a: ", b"- ", b"? "))},
        anything=True,
    ),
    "M32": one(DEEP, "CO1110"),
    "M33": Case(
        {b"a.yaml": b"a" * 10_000_000, b"b.yaml": b"\0" * 20_000_000},
        {"a.yaml": {"CO1001"}, "b.yaml": {"CO1001"}},
    ),
    "M34": Case(
        {b"a.yaml": b"---\n".join(manifest(f"m34-{n}") for n in range(201))},
        {"a.yaml": {"CO1112"}},
        {f"m34-{n}": {} for n in range(200)},
    ),
    "M35": Case(
        {b"a.yaml": b"a: &a 1\n" * 200_000, b"b.yaml": b"-\n" * 100_000, b"c.yaml": b"- !\n" * 60_000},
        {"a.yaml": {"CO1001"}, "b.yaml": {"CO1111"}},
        anything=True,
    ),
    "M36": Case(
        {b"a.yaml": b"---\n".join(manifest(f"m36-{n}") for n in range(3))},
        tasks={f"m36-{n}": {} for n in range(3)},
    ),
    "M37": Case(
        {b"a.yaml": b"", b"b.yaml": b"# nothing\n", b"c.yaml": b"---\n"},
        {"a.yaml": {"CO1009"}, "b.yaml": {"CO1009"}, "c.yaml": {"CO1205"}},
    ),
    "M38": several("m38", "CO1201", b"[a, b]\n", b"text\n"),
    "M39": one(manifest("m39", "scheduel: {}"), "CO1301"),
    "M40": Case(
        {
            b"version.yaml": manifest("m40").replace(b"observer/v1", b"observer/v9"),
            b"kind.yaml": manifest("m40").replace(b"kind: Task", b"kind: Tusk"),
        },
        {"version.yaml": {"CO1203"}, "kind.yaml": {"CO1204"}},
    ),
    "M41": specs("m41", "CO1303", "priority: true", "priority: 1.0"),
    "M42": Case({b"a.yaml": manifest('"m42\\n"')}, {"a.yaml": {"CO1206"}}),
    "M43": specs("m43", "CO1116", "priority: .nan"),
    "M44": specs("m44", "CO1116", "priority: 1e999"),
    "M45": good(
        "m45",
        manifest("m45", 'payload: {"$ref": "http://169.254.169.254/latest", "$schema": "file:///etc/passwd"}'),
        payload={"$ref": "http://169.254.169.254/latest", "$schema": "file:///etc/passwd"},
    ),
    "M46": good(
        "m46",
        manifest("m46", f'payload: {{pattern: "(a+)+$", text: "{"a" * 5_000}!"}}'),
        payload={"pattern": "(a+)+$", "text": "a" * 5_000 + "!"},
    ),
    "M47": Case(
        {
            b"a.yaml": b"---\n".join([manifest("m47-a"), manifest("m47-a")]),
            b"b.yaml": manifest("m47-b"),
            b"c.yaml": manifest("m47-b"),
        },
        {name: {"CO1207"} for name in ("a.yaml", "b.yaml", "c.yaml")},
    ),
    "M48": several("m48", "CO1206", manifest("Straße"), manifest("\uff4d48")),
    "M49": Case(
        {b"a.yaml": manifest("m49-lower"), b"A.yaml": manifest("m49-upper")}, tasks={"m49-lower": {}, "m49-upper": {}}
    ),
    "M50": Case(
        {
            b"a\nb.yaml": manifest("m50-a"),
            b"a\x1bb.yaml": manifest("m50-b"),
            "a\u202eb.yaml".encode(): manifest("m50-c"),
            b"\xff.yaml": manifest("m50-d"),
        },
        {"*": {"CO1008"}},
    ),
    "M51": Case(
        {b"p.yaml": ("120000", b"/etc/passwd"), b"d.yaml": ("120000", b"../../etc")},
        {"p.yaml": {"CO1004"}, "d.yaml": {"CO1004"}},
    ),
    "M52": Case({b"sub.yaml": ("160000", b"1" * 40)}, {"sub.yaml": {"CO1005"}}),
    "M53": Case(
        {b"a.yaml": MARKED, b".gitattributes": b"*.yaml filter=evil\n", b"b.yaml": manifest("m53")},
        {"a.yaml": {"CO1006"}},
        {"m53": {}},
    ),
    "M56": Case(
        {
            b"/".join([b"d" * 20] * 24) + b"/a.yaml": manifest("m56-long"),
            b"/".join([b"d"] * 400) + b"/a.yaml": manifest("m56-deep"),
        },
        tasks={"m56-long": {}, "m56-deep": {}},
    ),
    "M60": crons("m60", "CO3009", "0 0 31 2 *", "0 0 30 2 *"),
    "M61": good("m61", scheduled("m61", '{cron: "0 0 29 2 *"}')),
    "M62": crons("m62", "CO3003", "* * * * * *", "* * * * * * *"),
    "M63": Case(
        {b"r.yaml": scheduled("m63-r", '{cron: "R * * * *"}'), b"h.yaml": scheduled("m63-h", '{cron: "H H * * *"}')},
        {"r.yaml": {"CO3007"}},
        {"m63-h": {}},
    ),
    "M64": crons(
        "m64",
        {"*/0 * * * *": "CO3006"}
        | dict.fromkeys(("60 * * * *", "* 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8"), "CO3004"),
        *("*/0 * * * *", "60 * * * *", "* 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8"),
    ),
    "M65": crons("m65", "CO3005", "5-1 * * * *", "0 0 * * fri-mon"),
    "M66": crons("m66", "CO3006", "*/61 * * * *", "0 0 1-31/40 * *", "*/99999999999 * * * *"),
    "M67": Case(
        {
            b"q.yaml": scheduled("m67-q", '{cron: "0 0 ? * ?"}'),
            b"w.yaml": scheduled("m67-w", '{cron: "0 0 15W * *"}'),
            b"lw.yaml": scheduled("m67-lw", '{cron: "0 0 LW * *"}'),
            b"l.yaml": scheduled("m67-l", '{cron: "0 0 L * *"}'),
            b"n.yaml": scheduled("m67-n", '{cron: "0 0 * * 5#5"}'),
        },
        {name: {"CO3007"} for name in ("q.yaml", "w.yaml", "lw.yaml")},
        {"m67-l": {}, "m67-n": {}},
    ),
    "M68": Case(
        {
            b"daily.yaml": scheduled("m68", '{cron: "@daily"}'),
            b"reboot.yaml": scheduled("m68-reboot", '{cron: "@reboot"}'),
            b"every.yaml": scheduled("m68-every", '{cron: "@every 5m"}'),
        },
        {"reboot.yaml": {"CO3008"}, "every.yaml": {"CO3008"}},
        {"m68": {}},
    ),
    "M69": good("m69", scheduled("m69", '{cron: "0 0 13 * 5"}')),
    "M70": Case(
        {
            f"{n}.yaml".encode(): scheduled(f"m70-{n}", f'{{cron: "{text} * * * *"}}')
            for n, text in enumerate(("\u0660", "\uff10", "+5", "1e1", "0x5", "0_5"))
        },
        anything=True,
    ),
    "M71": crons("m71", "CO1307", ",".join(["0-59"] * 5_000) + " * * * *"),
    "M72": Case(
        {
            b"tab.yaml": scheduled("m72", '{cron: "0\\t5 * *  *"}'),
            b"line.yaml": scheduled("m72-l", '{cron: "0 5\\n* * *"}'),
        },
        {"line.yaml": {"CO3002"}},
        {"m72": {}},
    ),
    "M73": Case(
        {
            f"{n}.yaml".encode(): scheduled(f"m73-{n}", f'{{every: 1h, timezone: "{zone}"}}')
            for n, zone in enumerate(("Europe/Berln", "UTC+3", "../../etc/passwd", "localtime", "", "Europe/Berlin "))
        },
        {f"{n}.yaml": {"CO3011"} for n in range(6)},
    ),
    "M74": Case(
        {
            f"{n}.yaml".encode(): manifest(f"m74-{n}", f"timeout: {text}")
            for n, text in enumerate(("0s", "-1s", "1000000000000s", "P1Y", "8d"))
        },
        {"0.yaml": {"CO1309"}, "1.yaml": {"CO1308"}, "2.yaml": {"CO1308"}, "3.yaml": {"CO1308"}, "4.yaml": {"CO1309"}},
    ),
    "M75": Case(
        {
            b"max.yaml": manifest("m75-max", "retries: {max: 1000000000}"),
            b"zero.yaml": manifest("m75-zero", "retries: {max: 1, initial: 0s}"),
        },
        {"max.yaml": {"CO1306"}, "zero.yaml": {"CO1309"}},
    ),
    "M76": later("m76", "run: {host: {env: {LD_PRELOAD: x}}}", 'env: {"A=B": x}'),
    "M77": later("m77", 'run: {host: {command: ["a\\nb", "%"]}}', "command: x"),
    "M78": one(manifest("m78", "payload: {key: AKIA" + "ABCDEFGHIJKLMNOP}"), "CO1313"),
    "M79": beside(
        specs(
            "m79",
            "CO1325",
            'run: {http: {url: "http://"}}',
            "run: {http: {url: https://bücher.example/}}",
            "run: {http: {url: ftp://a/}}",
        ),
        CO1115='run: {http: {url: "https://a\\r\\nX: y/"}}',
        CO1307=f"run: {{http: {{url: https://a/{'x' * 10_000}}}}}",
        CO1313="run: {http: {url: https://user:pw@a/}}",
    ),
    "M80": beside(
        specs(
            "m80",
            "CO1326",
            "run: {http: {url: https://a, headers: {Host: b}}}",
            "run: {http: {url: https://a, headers: {X-A: bücher}}}",
            "run: {http: {url: https://a, headers: {X B: a}}}",
            'run: {http: {url: https://a, headers: {Content-Length: "1"}}}',
            "run: {http: {url: https://a, headers: {Transfer-Encoding: chunked}}}",
        ),
        CO1115='run: {http: {url: https://a, headers: {X-A: "b\\r\\nX: y"}}}',
    ),
    "M81": Case(
        {
            f"{name}.yaml".encode(): (
                f"apiVersion: cron-observer/v1\nkind: Calendar\nmetadata: {{name: m81-{name}}}\n"
                f"spec: {{base: [m81-{base}]}}\n"
            ).encode()
            for name, base in (("a", "b"), ("b", "a"))
        },
        {"a.yaml": {"CO1404"}, "b.yaml": {"CO1404"}},
    ),
    "M82": Case(
        {
            b"a.yaml": manifest("m82", "tenant: other"),
            b"b.yaml": manifest("m82").replace(b"{name: m82}", b"{name: m82, tenant: other}"),
        },
        {"a.yaml": {"CO1301"}, "b.yaml": {"CO1301"}},
    ),
}


def stream(cases: Mapping[str, Case], subject: bytes) -> Iterator[bytes]:
    """Write a commit of all cases, each below a folder of its name, for `git fast-import`."""
    person = f"{AUTHOR['GIT_AUTHOR_NAME']} <{AUTHOR['GIT_AUTHOR_EMAIL']}> 1790000000 +0000".encode()
    yield b"commit refs/heads/main\nauthor " + person + b"\ncommitter " + person
    yield b"\ndata %d\n%b\n" % (len(subject), subject)
    for name, case in cases.items():
        for path, entry in case.files.items():
            mode, content = entry if isinstance(entry, tuple) else ("100644", entry)
            whole = b'"' + b"".join(_octal(byte) for byte in name.encode() + b"/" + path) + b'"'
            if mode == "160000":
                yield b"M 160000 %b %b\n" % (content, whole)
            else:
                yield b"M %b inline %b\ndata %d\n%b\n" % (mode.encode(), whole, len(content), content)


def _octal(byte: int) -> bytes:
    return bytes([byte]) if 0x20 < byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte


def push(bare: Path, cases: Mapping[str, Case], subject: bytes = b"all of it") -> None:
    """Put all cases into the branch ``main`` of a bare repository, past what git would not check in."""
    subprocess.run(
        ["git", "fast-import", "--quiet", "--force"], cwd=bare, input=b"".join(stream(cases, subject)), check=True
    )
