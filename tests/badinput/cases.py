"""The list of bad inputs: of what kind, how each is made from the good ones, the command, and a word of its refusal."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """A bad input. ``word`` stands in the one line that refuses it; ``leaves``: the command may have written something
    that is whole by then.
    """

    kind: str
    make: str
    command: str
    word: str
    codes: tuple[int, ...] = (2,)
    leaves: bool = False


def each(kind: str, make: str, commands: tuple[str, ...], word: str, **more: object) -> list[Case]:
    """The same input for several commands."""
    return [Case(kind, make, command, word, **more) for command in commands]  # type: ignore[arg-type]


READERS = (
    "status tables",
    "compact tables",
    "prune tables",
    "analyze tables --out out",
    "figures tables --out out",
    "report tables --out out.html",
)
ANALYSES = READERS[3:]
COLLECT = "collect zoo --data digits --limit 12 --out out --msb-images 4 --collect checkpoints,layers,invariance"
COST = "collect zoo --data digits --limit 12 --out out --collect cost"
ROBUST = "collect zoo --data digits --limit 12 --out out --collect robustness"
AGAIN = COLLECT.replace("--out out", "--out tables")
TRAIN = "train recipe.yaml --out out"
LOOK = "look zoo --only max --data digits --limit 4 --out out"
SITES = "sites 'zoo:smallcnn?operator=max&width=4'"

NUMBERS = [
    *[
        Case("number", "zoo", f"{COLLECT} {flag} {value}", flag)
        for flag in ("--limit", "--jobs", "--batch-size", "--n-shifts", "--msb-images", "--seed", "--crop-size")
        for value in ("1e30", "nan", "2.5", "ten", "-7", "99999999999999999999")
    ],
    *[
        Case("number", "zoo", f"{COST} {flag} {value}", flag)
        for flag in ("--cost-repeats", "--cost-batch")
        for value in ("1e30", "0", "1000000000")
    ],
    *[
        Case("number", "zoo", f"{ROBUST} {flag} {value}", flag)
        for flag in ("--attack-steps", "--attack-restarts")
        for value in ("1e30", "0", "1000000000")
    ],
    *[
        Case("number", "zoo", f"{COLLECT} --time-limit {value}", "time")
        for value in ("inf", "nan", "-1", "soon", "1e300")
    ],
    *[
        Case("number", "zoo", f"{COLLECT} --max-shift {value}", "max")
        for value in ("nan", "inf", "1e30", "1/0", "99999999999")
    ],
    *[Case("number", "zoo", f"{ROBUST} --eps-linf {value}", "eps") for value in ("nan", "inf", "-1", "1e300")],
    Case("number", "zoo", f"{ROBUST} --attack-step nan", "attack-step"),
    Case("number", "zoo", f"{ROBUST} --attack-step inf", "attack-step"),
    Case("number", "zoo", f"{ROBUST} --severities 1,9", "severit"),
    Case("number", "zoo", f"{COLLECT} --jobs 10000", "--jobs"),
    Case("number", "zoo", f"{COLLECT} --batch-size 1000000000000", "--batch-size"),
    Case("number", "", f"{SITES} --size 1e9", "--size"),
    Case("number", "", f"{SITES} --size 1000000000", "--size"),
    Case("number", "", f"{SITES} --size 0", "--size"),
    Case("number", "", f"{SITES} --size nan", "--size"),
    Case("number", "", f"{SITES} --channels 1000000000", "--channels"),
    Case("number", "", f"{SITES} --channels 1e3", "--channels"),
    Case("number", "zoo", f"{LOOK} --size 1000000", "size"),
    Case("number", "zoo", f"{LOOK} --size 1e9", "--size"),
    Case("number", "zoo", f"{LOOK} --mean nan", "mean"),
    Case("number", "zoo", f"{LOOK} --std 0", "std"),
    Case("number", "zoo", f"{LOOK} --std inf", "std"),
    Case("number", "zoo", f"{LOOK} --image 99", "image"),
    Case("number", "zoo", f"{LOOK} --max-shift 99", "max_shift"),
    Case("number", "zoo", f"{LOOK} --batch-size 1.5", "--batch-size"),
    Case("number", "zoo", f"{LOOK} --limit 0", "--limit"),
    Case("number", "zoo", f"{LOOK} --seed 1e400", "--seed"),
    Case("number", "zoo", f"{LOOK} --seed 99999999999999999999", "--seed"),
    Case("number", "zoo", f"{LOOK} --seed -1", "--seed"),
    Case("number", "recipe", f"{TRAIN} --threads 1000000000", "--threads"),
    Case("number", "recipe", f"{TRAIN} --threads 1e9", "--threads"),
    Case("number", "recipe", f"{TRAIN} --jobs 100000", "--jobs"),
    Case("number", "recipe", f"{TRAIN} --jobs 0", "--jobs"),
    Case("number", "recipe", f"{TRAIN} --save-every nan", "--save-every"),
    Case("number", "recipe", f"{TRAIN} --save-every -5", "--save-every"),
    Case("number", "", "demo --out out --jobs 1000000", "--jobs"),
    Case("number", "", "demo --out out --jobs 1.5", "--jobs"),
    Case("number", "zoo", "pack zoo --out out --half digits --limit 0", "--limit"),
    Case("number", "zoo", "pack zoo --out out --half digits --limit nan", "--limit"),
    Case("number", "", "operators --only 'blur(m=1e9)'", "m"),
    Case("number", "", "operators --only 'blur(m=99999)'", "m"),
    Case("number", "", "operators --only 'soft(beta=nan)'", "beta"),
    Case("number", "", "operators --only 'max(kernel=1000000)'", "kernel"),
    Case("number", "", "operators --only 'lp(p=1e400)'", "p"),
    Case("number", "zoo", "collect zoo --data shapes:99999 --limit 4 --out out", "shapes"),
    Case("number", "zoo", "collect zoo --data shapes:nan --limit 4 --out out", "shapes"),
    Case("number", "zoo", "collect zoo --data shapes:-3 --limit 4 --out out", "shapes"),
    Case("number", "", "sites 'zoo:smallcnn?operator=max&width=1000000'", "width"),
    Case("number", "", "sites 'zoo:smallcnn?operator=max&width=-1'", "width"),
    Case("number", "", "sites 'zoo:smallcnn?operator=max&classes=100000000000'", "classes"),
]

WORDS = [
    Case("word", "", "", "command"),
    Case("word", "", "colect zoo", "did you mean"),
    Case("word", "", "ESC", "command"),
    Case("word", "", "SURROGATE", "command"),
    Case("word", "", "analyze", "TABLES"),
    Case("word", "", "report tables --out", "--out"),
    Case("word", "", "report tables --oot x", "--out"),
    Case("word", "", "demo --task everything", "--task"),
    Case("word", "", "status tables zoo more", "more"),
    Case("word", "zoo", f"{COLLECT} --shift sideways", "sideways"),
    Case("word", "zoo", f"{COLLECT} --precision fp8", "fp8"),
    Case("word", "zoo", f"{COLLECT} --device tpu", "tpu"),
    Case("word", "zoo", f"{COLLECT} --fill ESC", "fill"),
    Case("word", "zoo", f"{COLLECT} --only ESC", "--only"),
    Case("word", "zoo", f"{COLLECT} --only '['", "--only"),
    Case("word", "zoo", f"{COLLECT} --backend ESC", "backend"),
    Case("word", "zoo", "collect zoo --data digits --out out --collect layers,ESC", "collector"),
    Case("word", "zoo", "collect zoo --data digits --out out --collect none", "none"),
    Case("word", "zoo", "collect zoo --data NUL --out out", "data set"),
    Case("word", "zoo", "collect zoo --data EMPTY --out out", "data"),
    Case("word", "zoo", "collect zoo --data digits:more --out out", "digits"),
    Case("word", "zoo", "collect zoo --data digits --split ESC --out out", "split"),
    Case("word", "zoo", f"{ROBUST} --norms l7", "l7"),
    Case("word", "zoo", f"{ROBUST} --corruptions ESC", "corruption"),
    Case("word", "zoo", f"{ROBUST} --attacks ESC", "attack"),
    Case("word", "", "operators --only ESC", "operator"),
    Case("word", "", "operators --only BLANKS", "operator"),
    Case("word", "", "operators --only 'soft(beta=2'", "operator"),
    Case("word", "", "operators --only 'mix(0.5, mix(0.5, max, nothing), avg)'", "nothing"),
    Case("word", "", "operators --only 'max(max=max)'", "max"),
    Case("word", "", "operators --only '((((((((((((max'", "operator"),
    Case("word", "", "sites ESC", "model"),
    Case("word", "", "sites NUL", "model"),
    Case("word", "", "sites EMPTY", "model"),
    Case("word", "", "sites zoo:none", "none"),
    Case("word", "", "sites 'zoo:smallcnn?operator'", "operator"),
    Case("word", "", "sites 'zoo:smallcnn?operator=BLANKS'", "operator"),
    Case("word", "", "sites timm:no_such_network", "no_such_network"),
    Case("word", "", "sites torchvision:NUL", "torchvision"),
    Case("word", "tables", "figures tables --out out --only ESC", "figure"),
    Case("word", "tables", "figures tables --out out --format ESC", "format"),
    Case("word", "tables", "figures tables --out out --x ESC", "reading"),
    Case("word", "tables", "figures tables --out out --only shift_surface", "figure"),
    Case("word", "zoo", f"{LOOK} --swap ESC", "operator"),
    Case("word", "zoo", f"{LOOK} --shift crop", "crop"),
    Case("word", "zoo", f"{LOOK} --site ESC", "site"),
    Case("word", "zoo", "look zoo --data digits --out out", "--only"),
    Case("word", "zoo", "look zoo --only max --out out", "--data"),
    Case("word", "recipe", f"{TRAIN} --device ESC", "device"),
]

PATHS = [
    *[
        Case("path", "", command, word)
        for place in ("NUL", "LONG", "loop", "SURROGATE")
        for command, word in (
            (f"analyze {place} --out out", "folder"),
            (f"status {place}", "tables"),
            (f"collect {place} --data digits --out out", "manifest"),
            (f"train {place} --out out", "recipe"),
            (f"draw {place} --out out.yaml", "design"),
            (f"unpack {place} --out out", "pack"),
        )
        if place != "loop"
    ],
    *each(
        "path",
        "loop loop",
        (
            "analyze loop --out out",
            "status loop",
            "collect loop --data digits --out out",
            "train loop --out out",
            "draw loop --out o.yaml",
            "unpack loop --out out",
            "compact loop",
            "prune loop",
        ),
        "loop",
    ),
    *[
        Case("path", "tables", f"{command} --out {place}", place if place.islower() else "")
        for place in ("NUL", "LONG", "EMPTY", "tables/layers", "/dev/null", "/proc/none/out")
        for command in ("report tables",)
    ],
    *[
        Case(
            "path",
            "tables;; file there text;; loop loop",
            f"{command} --out {place}",
            place if place.islower() else "out",
        )
        for place in ("NUL", "LONG", "EMPTY", "there", "loop", "/dev/null", "/proc/none")
        for command in ("analyze tables", "figures tables --only msb_invariance")
    ],
    *[
        Case(
            "path", "zoo;; file there text;; loop loop", f"{command} --out {place}", place if place.islower() else "out"
        )
        for place in ("NUL", "LONG", "EMPTY", "there", "loop", "/dev/null")
        for command in (
            "collect zoo --data digits --limit 12 --collect layers --msb-images 4",
            "pack zoo",
            "look zoo --only max --data digits --limit 4",
        )
    ],
    *[
        Case(
            "path",
            "recipe;; file there text;; loop loop",
            f"train recipe.yaml --out {place}",
            place if place.islower() else "out",
        )
        for place in ("NUL", "LONG", "EMPTY", "there", "loop", "/dev/null")
    ],
    *[
        Case(
            "path",
            "packs;; file there text;; loop loop",
            f"unpack packs --out {place}",
            place if place.islower() else "out",
        )
        for place in ("NUL", "LONG", "EMPTY", "there", "loop", "/dev/null")
    ],
    *[
        Case(
            "path",
            "design '{count: 2, seed: 1}';; file there text;; loop loop",
            f"draw design.yaml --out {place}",
            place if place.islower() else "out",
        )
        for place in ("NUL", "LONG", "EMPTY", "there", "loop", "/dev/null")
    ],
    Case("path", "link page.html /dev/null;; tables", "report tables --out page.html", "page.html"),
    Case("path", "fifo page.html;; tables", "report tables --out page.html", "page.html"),
    Case("path", "", "demo --out EMPTY --only max*", "--out"),
    Case("path", "", "demo --out NUL", "--out"),
    *[
        Case("path", "tables", f"{command.replace('tables', place, 1)}", word)
        for place, word in (
            ("s3://no-such-bucket-anywhere/x", "s3://"),
            ("gs://no-such-bucket-anywhere/x", "gs://"),
            ("zip://none", "zip://"),
            ("memory://x", "memory://"),
            ("zip://tables::NUL", "zip://"),
            ("none://x", "none://"),
        )
        for command in ("status tables", "analyze tables --out out")
    ],
    *[
        Case("path", "zoo", f"collect zoo --data digits --limit 12 --collect layers --out {place}", word)
        for place, word in (
            ("s3://no-such/x", "s3://"),
            ("gs://no-such/x", "gs://"),
            ("zip://none", "zip://"),
            ("memory://x", "memory://"),
            ("http://127.0.0.1:9/x", "http://"),
        )
    ],
    Case("path", "zoo", "collect zoo --data parquet:NUL --out out", "parquet"),
    Case("path", "zoo", "collect zoo --data parquet: --out out", "parquet"),
    Case("path", "zoo;; loop loop", "collect zoo --data imagefolder:loop --out out", "loop"),
    Case("path", "zoo;; fifo data.parquet", "collect zoo --data parquet:data.parquet --out out", "data.parquet"),
    Case("path", "zoo;; folder data.parquet", "collect zoo --data parquet:data.parquet --out out", "data.parquet"),
    Case("path", "zoo", "collect zoo --data cifar10:zoo --out out", "zoo"),
    Case("path", "zoo;; image", "look zoo --only max none.png --out out", "none.png"),
    Case("path", "zoo;; fifo a.png", "look zoo --only max a.png --out out", "a.png"),
    Case("path", "zoo;; file a.png rubbish", "look zoo --only max a.png --out out", "a.png"),
    Case("path", "zoo;; folder a.png", "look zoo --only max a.png --out out", "a.png"),
    Case("path", "zoo", "look zoo --only max NUL --out out", "image"),
    Case("path", "zoo", "look 'zoo:smallcnn?width=4&in_channels=1' --weights NUL --data digits --out out", "weights"),
    Case(
        "path",
        "zoo;; fifo w.pt",
        "look 'zoo:smallcnn?width=4&in_channels=1' --weights w.pt --data digits --out out",
        "w.pt",
    ),
]

YAML_COMMANDS = (
    "collect zoo --data digits --out out",
    "status tables zoo",
    "pack zoo --out out",
    "look zoo --data digits --out out",
)
MANIFESTS = [
    *[
        Case("manifest", f"zoo;; tables;; {make}", command, word)
        for make, word in (
            ("fifo zoo/zoo.yaml", "zoo.yaml"),
            ("loop zoo/zoo.yaml", "zoo.yaml"),
            ("link zoo/zoo.yaml /dev/zero", "zoo.yaml"),
            ("huge zoo/zoo.yaml", "zoo.yaml"),
            (r"file zoo/zoo.yaml \xff\xfe\x00", "zoo.yaml"),
            ("alias_bomb zoo/zoo.yaml", "zoo.yaml"),
            ("alias_factors", "zoo.yaml"),
            ("merge_bomb zoo/zoo.yaml", "zoo.yaml"),
            ("deep zoo/zoo.yaml", "zoo.yaml"),
        )
        for command in YAML_COMMANDS[:2]
    ],
    *[
        Case("manifest", f"zoo;; {make}", f"{COLLECT} --limit 4", word)
        for make, word in (
            ('entry {"weights": "/**/*.safetensors"}', "weights"),
            ('entry {"weights": "../**/*.safetensors"}', "weights"),
            ('entry {"weights": "a\\u0000b.pt"}', "weights"),
            ('entry {"weights": "/dev/zero"}', "weights"),
            ('entry {"model": "zoo:smallcnn?operator=soft(beta=nan)"}', "soft"),
            ('entry {"model": "a\\u0000b"}', "model"),
            ('entry {"model": "a\\u001b[31m"}', "model"),
            ('entry {"input": {"size": 20000, "mean": 0.5, "std": 0.5}}', "size"),
            ('entry {"input": {"size": 1e30, "mean": 0.5, "std": 0.5}}', "size"),
            ('entry {"input": {"size": 32, "mean": [0.5], "std": [1e-320]}}', "std"),
            ('entry {"input": {"size": 32, "mean": [1e308], "std": [0.5]}}', "mean"),
            ('entry {"name": ["a"]}', "name"),
            ('entry {"factors": {"seed": 1e999}}', "seed"),
            ('entry {"factors": {"strength": [1, 2]}}', "strength"),
            ('entry {"factors": {"seed": 99999999999999999999999}}', "seed"),
            ('entry {"prefix": {"a": 1}}', "prefix"),
            ('entry {"classes": {"offset": 1, "count": 1000000000000}}', "classes"),
            ('entry {"classes": [99999999999]}', "classes"),
            ('entry {"rename": {"regex": "(((", "to": "x"}}', "rename"),
            ('entry {"labels": "cifar10"}', "labels"),
            ("replace checkpoints: => allow_outside: 3\\ncheckpoints:", "zoo.yaml"),
            ("weights claim", "max.safetensors"),
        )
        if "weights claim" not in make
    ],
    Case("bomb", "zoo;; many 200000", COLLECT, "zoo.yaml"),
    *[
        Case("weights", f"zoo;; weights {how}", f"{COLLECT} --only max", "max.safetensors", codes=(3,), leaves=True)
        for how in ("empty", "cut", "header", "rubbish", "claim", "json", "nul")
    ],
    Case(
        "weights", "zoo;; empty_tensors 1000000", f"{COLLECT} --only max", "max.safetensors", codes=(2, 3), leaves=True
    ),
    Case("weights", "zoo;; fifo zoo/max.safetensors", COLLECT, "max.safetensors"),
    Case(
        "weights",
        "zoo;; huge zoo/max.safetensors",
        f"{COLLECT} --only max",
        "max.safetensors",
        codes=(2, 3),
        leaves=True,
    ),
    Case("weights", "zoo;; weights rubbish", "pack zoo --out out", "max.safetensors"),
    Case("weights", "zoo;; weights cut", LOOK, "max.safetensors"),
    Case("weights", "packs;; file packs/pack-000.safetensors rubbish", "unpack packs --out out", "pack-000"),
    Case("weights", "packs;; fifo packs/pack-000.safetensors", "unpack packs --out out", "pack-000"),
    Case("weights", "packs;; file packs/pack-x.safetensors rubbish", "unpack packs --out out", "pack-x"),
    Case("weights", "packs;; huge packs/pack-000.safetensors", "unpack packs --out out", "pack-000"),
]

DATA = [
    *[
        Case("data", f"zoo;; data_parquet {how}", "collect zoo --data parquet:data.parquet --out out", "data.parquet")
        for how in ("label", "negative", "null", "text", "none", "columns", "rows")
    ],
    Case("data", "zoo;; claims", "collect zoo --data imagefolder:images --out out", "0.png"),
    Case(
        "data",
        "zoo;; pngs 48 8000",
        "collect zoo --data imagefolder:images --out out --collect layers --msb-images 4",
        "images",
    ),
    Case("data", "zoo;; folder images", "collect zoo --data imagefolder:images --out out", "images"),
    Case("data", "zoo;; huge data.parquet", "collect zoo --data parquet:data.parquet --out out", "data.parquet"),
    Case(
        "data", "zoo;; file data.parquet PAR1PAR1", "collect zoo --data parquet:data.parquet --out out", "data.parquet"
    ),
    Case("data", "zoo;; data_parquet label", "pack zoo --out out --half parquet:data.parquet", "data.parquet"),
    Case("data", 'recipe {"data": "parquet:none.parquet"}', TRAIN, "none.parquet"),
    Case("data", 'data_parquet label;; recipe {"data": "parquet:data.parquet"}', TRAIN, "data.parquet"),
]

RECIPES = [
    *[
        Case("recipe", make, TRAIN, word)
        for make, word in (
            ("fifo recipe.yaml", "recipe.yaml"),
            ("folder recipe.yaml", "recipe.yaml"),
            ("loop recipe.yaml", "recipe.yaml"),
            ("huge recipe.yaml", "recipe.yaml"),
            (r"file recipe.yaml \xff\xff", "recipe.yaml"),
            ("alias_bomb recipe.yaml", "recipe.yaml"),
            ("merge_bomb recipe.yaml", "recipe.yaml"),
            ("grid_bomb", "recipe.yaml"),
            ("grid_bomb 7", "recipe.yaml"),
            ('recipe {"batch_size": 1000}', "batch_size"),
            ('recipe {"batch_size": 1e30}', "batch_size"),
            ('recipe {"epochs": 1000000000000000000}', "epochs"),
            ('recipe {"epochs": 0}', "epochs"),
            ('recipe {"lr": 1e999}', "lr"),
            ('recipe {"seed": 99999999999999999999999}', "seed"),
            ('recipe {"label": "a/../../b\\u0000"}', "label"),
            ('recipe {"operator": "max(kernel=100000)"}', "kernel"),
            ('recipe {"model": {"width": 1000000}}', "width"),
            ('recipe {"limit": 1}', "limit"),
            ('recipe {"snapshots": [1, 2, 3]}', "snapshot"),
            ('recipe {"factors": {"a": [1]}}', "factors"),
            ('recipe {"data": "shapes:99999"}', "shapes"),
            ('recipe {"augment_shift": 1000000}', "augment_shift"),
        )
    ],
    Case("recipe", "recipe;; readonly out", TRAIN, "out"),
    Case("recipe", "recipe;; folder out/.smallcnn-max-zeros-s0.training", TRAIN, ".training"),
    Case("recipe", "recipe;; fifo out/.smallcnn-max-zeros-s0.training", TRAIN, ".training"),
    Case("recipe", "recipe;; file out/smallcnn-max-zeros-s0-e001.safetensors rubbish", TRAIN, "e001"),
    Case("recipe", "recipe;; folder out/smallcnn-max-zeros-s0-e001.safetensors", TRAIN, "e001"),
    Case("recipe", "recipe;; fifo out/smallcnn-max-zeros-s0-e001.safetensors", TRAIN, "e001"),
    Case("recipe", "recipe;; file out/zoo.yaml rubbish", TRAIN, "zoo.yaml"),
    Case("recipe", "recipe;; folder out/zoo.yaml", TRAIN, "zoo.yaml"),
    *[
        Case("design", make, "draw design.yaml --out drawn.yaml", "design.yaml")
        for make in (
            "design {count: 1000000000, seed: 1}",
            "design {count: 1, seed: 1}",
            "design {count: 1e30, seed: 1}",
            "design {count: 4, seed: 99999999999999999999999999}",
            "design {count: 4, seed: 1, name: a/b}",
            "fifo design.yaml",
            "grid_bomb;; link design.yaml recipe.yaml",
            r"file design.yaml \xff",
            "alias_bomb design.yaml",
        )
    ],
]

TABLES = [
    *[
        case
        for how, commands in (
            ("empty", READERS),
            ("cut", READERS),
            ("rubbish", READERS),
            ("fifo", READERS),
            ("folder", READERS),
            ("device", READERS),
            ("footer", READERS),
            ("schema", READERS),
            ("text", READERS[:1]),
            ("magic", READERS[:1]),
            ("page", ANALYSES),
            ("list", (READERS[1], *ANALYSES)),
            ("words", (READERS[1], *ANALYSES)),
            ("struct", (READERS[1], *ANALYSES)),
            ("lacks", (READERS[1], *ANALYSES)),
            ("none", READERS[:2]),
            ("nulls", (READERS[1], *ANALYSES)),
            ("utf8", READERS),
            ("version", READERS[1:2] + ANALYSES),
            ("binaryversion", READERS[1:2] + ANALYSES[:1]),
            ("twice", ANALYSES),
        )
        for case in each("table", f"tables;; spoil invariance {how}", commands, "invariance")
    ],
    *[
        case
        for how in ("cut", "rubbish", "utf8", "fifo", "list")
        for case in each("table", f"tables;; spoil checkpoints {how}", READERS, "checkpoints")
    ],
    *[Case("table", f"zoo;; tables;; spoil checkpoints {how}", AGAIN, "", codes=(2,)) for how in ("fifo", "folder")],
    *each("table", "tables;; table_is_file layers", READERS, "layers"),
    *each("table", "folder tables", READERS, "tables"),
    *each("table", "file tables rubbish", READERS, "tables"),
    *[
        case
        for text in ("[1, 2]", "null", "{", '{"seed": {"a": 1}}', "3", '"\\\\ud800"', "[" * 3000)
        for case in each(
            "factors", f"tables;; factors {text}", ANALYSES[:1] if text != "[1, 2]" else ANALYSES, "factors"
        )
    ],
    *[
        Case("range", f"tables;; value {place}", "analyze tables --out out", word)
        for place, word in (
            ("invariance value 7.0", "value"),
            ("invariance value -1.0", "value"),
            ("invariance value 1e308", "value"),
            ("invariance value Infinity", "value"),
            ("invariance se -3.0", "se"),
            ("invariance n_images -4", "n_images"),
            ("layers msb 5.0", "msb"),
            ("layers msb -9.0", "msb"),
            ("layers selectivity 1e308", "selectivity"),
            ("layers see -1.0", "see"),
            ("layers depth -3", "depth"),
            ("checkpoints n_params -1", "n_params"),
        )
    ],
    *each("bomb", "tables;; rows_bomb 3000000", ("analyze tables --out out", "report tables --out out.html"), "layers"),
]

CODE = [
    Case("code", 'zoo;; code;; entry {"model": "python:net.py:build"}', COLLECT, "--allow-code"),
    Case("code", 'zoo;; code;; entry {"model": "python:net.py:build"}', f"{COLLECT} --dry-run", "--allow-code"),
    Case("code", 'zoo;; code;; entry {"model": "zoo:smallcnn?operator=python:net.py:build"}', COLLECT, "--allow-code"),
    Case("code", 'zoo;; code;; entry {"model": "python:net.py:build"}', LOOK, "--allow-code"),
    Case(
        "code",
        'zoo;; code;; entry {"model": "python:net.py:build"}',
        "pack zoo --out out --half digits",
        "--allow-code",
    ),
    Case("code", "zoo;; code net.py", "sites python:net.py:build", "--allow-code"),
    Case("code", "zoo;; code net.py", "sites 'zoo:smallcnn?operator=python:net.py:build'", "--allow-code"),
    Case("code", "code net.py", "operators --only python:net.py:build", "--allow-code"),
    Case("code", "code net.py", "look python:net.py:build --data digits --out out", "--allow-code"),
    Case("code", "zoo;; code net.py", f"{LOOK} --swap python:net.py:build", "--allow-code"),
    Case("code", "zoo;; code net.py", "collect zoo --data python:net.py:build --out out", "--allow-code"),
    Case("code", "zoo;; code net.py", f"{ROBUST} --second-data python:net.py:build", "--allow-code"),
    Case(
        "code",
        "zoo;; code net.py",
        "collect zoo --data digits --out out --collect swaps --swap-to python:net.py:build",
        "--allow-code",
    ),
    Case("code", "tables;; code net.py", "figures tables --out out --only python:net.py:build", "--allow-code"),
    Case("code", 'code net.py;; recipe {"operator": "python:net.py:build"}', TRAIN, "--allow-code"),
    Case("code", 'code net.py;; recipe {"architecture": "python:net.py:build"}', TRAIN, "--allow-code"),
    Case("code", 'code net.py;; recipe {"data": "python:net.py:build"}', TRAIN, "--allow-code"),
    Case("code", 'code net.py;; recipe {"evaluate_as": ["python:net.py:build"]}', TRAIN, "--allow-code"),
    Case(
        "code",
        "code net.py;; file design.yaml defaults: {operator: 'python:net.py:build'}\\ngrid:\\n- population: {count: 2, seed: 1}\\n",
        "draw design.yaml --out drawn.yaml",
        "--allow-code",
    ),
    Case("code", "zoo;; code net.py", "pack zoo --out out --half python:net.py:build", "--allow-code"),
]

NAMES = [
    Case("name", f"tables;; names {three}", command, "", codes=(0,), leaves=True)
    for three in (
        "mathtext percent html",
        "markdown formula plus",
        "at minus latex",
        "escape controls lines",
        "direction long wide",
        "blanks percent latex",
    )
    for command in READERS
]

CASES = [*NUMBERS, *WORDS, *PATHS, *MANIFESTS, *DATA, *RECIPES, *TABLES, *CODE, *NAMES]
