"""Search spaces: the built-in numbers, files of users, and a message with file, line and field for everything wrong."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas.space import CANDIDATE_KINDS, FIXED_KINDS, FOLDER, SKIP_RULES, builtin_spaces, load_space
from nas.spaces.toml_lines import toml_lines
from protos.errors import BadInputError
from protos.types import ACTIVATIONS, NORMS, BlockSpec, SearchSpace

OPS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
REPEATS = (1, 4, 4, 4, 4, 4, 1)
CHANNELS = (16, 24, 32, 64, 112, 184, 352)
FIRST_OF_STAGE = (0, 1, 5, 9, 13, 17, 21)

TINY_TOML = """\
name = "tiny"
input = { channels = 3, height = 8, width = 6 }
norm = "batch"
stem = [
    { kind = "conv", channels = 8, kernel = 3, stride = 2, activation = "none" },
]
stages = [
    { channels = 8, repeats = 2 },
    { channels = 12, repeats = 2, stride = 2, candidates = ["k3", "wide", "skip"] },
]
head = [{ kind = "pool_linear", channels = 4 }]

[candidates]
k3 = { kernel = 3 }
wide = { kernel = 5, expansion = 4, activation = "relu6" }
grouped = { kernel = 3, groups = 4, norm = "none" }
skip = { kind = "skip" }
"""

TINY_YAML = """\
name: tiny
input: {channels: 3, height: 8, width: 6}
norm: batch
stem:
  - {kind: conv, channels: 8, kernel: 3, stride: 2, activation: none}
stages:
  - channels: 8
    repeats: 2
  - channels: 12
    repeats: 2
    stride: 2
    candidates: [k3, wide, skip]
head:
  - {kind: pool_linear, channels: 4}
candidates:
  k3: {kernel: 3}
  wide:
    kernel: 5
    expansion: 4
    activation: relu6
  grouped: {kernel: 3, groups: 4, norm: none}
  skip: {kind: skip}
"""


BILLION_LAUGHS = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 20)}]\n" for n in range(1, 9))


def specs_of(space: SearchSpace) -> list[BlockSpec]:
    return [cell.spec for layer in space.layers for cell in layer.cells if cell.spec is not None]


def written(folder: Path, text: str, name: str = "space.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path) -> str:
    """What is said about a file, with its name in place of its path."""
    with pytest.raises(BadInputError) as caught:
        load_space(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    return message.replace(str(path), path.name)


# ---- built in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stem_stride", "strides", "sizes", "head", "classes"),
    [
        ("fbnet-cifar10", 2, (1, 2, 2, 1, 1, 1, 1), (16, 8, 4, 4, 4, 4, 4), 1984, 10),
        ("fbnet-imagenet", 2, (1, 2, 2, 2, 1, 2, 1), (112, 56, 28, 14, 14, 7, 7), 1504, 1000),
        ("fbnet-cifar100-hwnas", 1, (1, 1, 2, 2, 1, 2, 1), (32, 32, 16, 8, 8, 4, 4), 1504, 100),
    ],
)
def test_built_in_spaces_have_the_published_numbers(
    name: str, stem_stride: int, strides: tuple[int, ...], sizes: tuple[int, ...], head: int, classes: int
) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.op_names == OPS
    assert space.shape == (22, 9)
    (stem,) = space.stem
    assert (stem.kind, stem.out_channels, stem.kernel, stem.stride, stem.activation) == (
        "conv",
        16,
        3,
        stem_stride,
        "none",
    )
    layer = 0
    for channels, repeats, stride, size in zip(CHANNELS, REPEATS, strides, sizes, strict=True):
        for index in range(repeats):
            spec = space.spec(layer, 3)
            assert spec is not None
            assert (spec.out_channels, spec.output_height, spec.output_width) == (channels, size, size)
            assert spec.stride == (stride if index == 0 else 1)
            layer += 1
    conv, pool = space.head
    assert (conv.kind, conv.in_channels, conv.out_channels, conv.kernel, conv.activation) == (
        "conv",
        352,
        head,
        1,
        "none",
    )
    assert (pool.kind, pool.in_channels, pool.out_channels, pool.input_height) == (
        "pool_linear",
        head,
        classes,
        sizes[-1],
    )
    specs = specs_of(space)
    assert len(specs) == 191
    assert len({spec for spec in specs if spec.kind != "skip"}) == 96
    assert all(spec.norm == "none" and spec.batch == 1 for spec in specs)


def test_fbnet_cifar10_is_hannas() -> None:
    space = load_space("fbnet-cifar10")
    blocks = {(s.kernel, s.expansion, s.groups) for s in specs_of(space) if s.kind == "mbconv"}
    assert blocks == {(k, e, g) for k in (3, 5) for e, g in ((1, 1), (1, 2), (3, 1), (6, 1))}
    shapes = {(s.in_channels, s.out_channels, s.stride, s.input_height) for s in specs_of(space)}
    assert len(shapes) == 12
    without_skip = tuple(layer for layer in range(22) if 8 not in space.allowed(layer))
    assert without_skip == FIRST_OF_STAGE
    total = 1
    for layer in range(22):
        total *= len(space.allowed(layer))
    assert total == 8**7 * 9**15
    assert space.input_shape == (1, 3, 32, 32)


def test_built_in_names() -> None:
    assert builtin_spaces() == ("fbnet-cifar10", "fbnet-cifar100-hwnas", "fbnet-imagenet")
    assert len({load_space(name).digest for name in builtin_spaces()}) == 3


def test_reading_a_space_loads_neither_torch_nor_numpy_nor_yaml() -> None:
    code = (
        "import sys, nas.space as s; s.load_space('fbnet-cifar10'); print({'torch', 'numpy', 'yaml'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- files of users -------------------------------------------------------------------------------------------------


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    space = load_space(written(tmp_path, TINY_TOML))
    assert load_space(str(written(tmp_path, TINY_YAML, "space.yaml"))) == space
    assert load_space(written(tmp_path, TINY_YAML, "space.YML")) == space
    assert load_space(written(tmp_path, TINY_TOML.replace("\n", "\r\n"))) == space
    assert space.op_names == ("k3", "wide", "grouped", "skip")
    assert [space.allowed(layer) for layer in range(4)] == [(0, 1, 2), (0, 1, 2, 3), (0, 1), (0, 1, 3)]
    wide = space.spec(2, 1)
    assert wide == BlockSpec(
        "mbconv",
        8,
        12,
        kernel=5,
        stride=2,
        expansion=4,
        activation="relu6",
        norm="batch",
        input_height=4,
        input_width=3,
    )
    grouped = space.spec(0, 2)
    assert grouped is not None
    assert (grouped.groups, grouped.norm) == (4, "none")
    assert space.stem[0].norm == "batch"
    assert (space.head[0].norm, space.head[0].input_height, space.head[0].input_width) == ("none", 2, 2)


def test_defaults_and_array_of_tables(tmp_path: Path) -> None:
    text = (
        'name = "least"\n[input]\nchannels = 4\nheight = 5\nwidth = 5\n[candidates]\na = {}\n[[stages]]\nchannels = 4\n'
    )
    space = load_space(written(tmp_path, text))
    assert space.stem == space.head == ()
    assert specs_of(space) == [BlockSpec("mbconv", 4, 4, input_height=5, input_width=5)]


@pytest.mark.parametrize(("rule", "layers"), [("after-first", [1, 3]), ("same-shape", [0, 1, 3]), ("never", [])])
def test_skip_rules(tmp_path: Path, rule: str, layers: list[int]) -> None:
    space = load_space(written(tmp_path, f'skip = "{rule}"\n{TINY_TOML}'))
    assert [layer for layer in range(4) if 3 in space.allowed(layer)] == layers


def test_a_stage_may_have_its_own_skip_rule(tmp_path: Path) -> None:
    text = TINY_TOML.replace("channels = 8, repeats = 2 }", 'channels = 8, repeats = 2, skip = "same-shape" }')
    space = load_space(written(tmp_path, text))
    assert [layer for layer in range(4) if 3 in space.allowed(layer)] == [0, 1, 3]


def test_batch_is_of_every_operator(tmp_path: Path) -> None:
    space = load_space(written(tmp_path, f"batch = 4\n{TINY_TOML}"))
    assert {spec.batch for spec in (*specs_of(space), *space.stem, *space.head)} == {4}


def test_fbnet_with_batch_norm_is_a_copy_with_one_more_line(tmp_path: Path) -> None:
    source = (FOLDER / "fbnet-imagenet.toml").read_text(encoding="utf-8")
    text = 'norm = "batch"\n' + source.replace('name = "fbnet-imagenet"', 'name = "fbnet-bn"')
    space = load_space(written(tmp_path, text))
    assert {spec.norm for spec in specs_of(space) if spec.kind == "mbconv"} == {"batch"}
    assert space.digest != load_space("fbnet-imagenet").digest


def test_a_built_in_name_is_not_for_other_operators(tmp_path: Path) -> None:
    source = (FOLDER / "fbnet-cifar10.toml").read_text(encoding="utf-8")
    assert load_space(written(tmp_path, source)) == load_space("fbnet-cifar10")
    message = complaint(written(tmp_path, source.replace("1984", "1504")))
    assert "line 3, name: 'fbnet-cifar10' is a built-in space with other operators" in message


# ---- what is wrong, and where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "says"),
    [
        ("repeats = 2 }", "repeat = 2 }", 8, "stages[0].repeat", "did you mean 'repeats'?"),
        ("stride = 2, candidates", "stride = 0, candidates", 9, "stages[1].stride", "whole number from 1"),
        ("channels = 12", "channels = true", 9, "stages[1].channels", "is True"),
        ("channels = 12", "channels = 12.5", 9, "stages[1].channels", "is 12.5"),
        ("channels = 12, ", "", 9, "stages[1]", "'channels' is missing"),
        ('"wide", "skip"]', '"wilde"]', 9, "stages[1].candidates[1]", "did you mean 'wide'?"),
        ("kernel = 5", "kernel = 4", 15, "candidates.wide.kernel", "must be odd"),
        ('"relu6"', '"rellu6"', 15, "candidates.wide.activation", "did you mean 'relu6'?"),
        ("groups = 4", "groups = 3", 8, "stages[0]", "candidate grouped: groups is 3; it must divide the channels 8"),
        ('kind = "skip"', 'kind = "skip", kernel = 3', 17, "candidates.skip.kernel", "unknown key"),
        ('kind = "skip"', 'kind = "skipp"', 17, "candidates.skip.kind", "did you mean 'skip'?"),
        ("height = 8, ", "", 2, "input", "'height' is missing"),
        ("height = 8", "height = -8", 2, "input.height", "is -8"),
        ('"tiny"', '"no good/name"', 1, "name", "letters, digits"),
        ('"tiny"', "7", 1, "name", "must be text"),
        ('norm = "batch"', 'norm = "layer"', 3, "norm", "known: none, batch"),
        ('norm = "batch"', 'skip = "first"', 3, "skip", "known: after-first, same-shape, never"),
        ('kind = "pool_linear"', 'kind = "pool"', 11, "head[0].kind", "known: conv, mbconv, pool_linear"),
        ("channels = 4 }", "channels = 4, kernel = 1 }", 11, "head[0].kernel", "unknown key"),
        ('["k3", "wide", "skip"]', '["skip"]', 9, "stages[1]", "no candidate is allowed on layer 1"),
        ('["k3", "wide", "skip"]', "[]", 9, "stages[1].candidates", "is empty"),
        ('["k3", "wide", "skip"]', "3", 9, "stages[1].candidates", "must be a list"),
        ("repeats = 2 }", "repeats = 1000 }", 7, "stages", "more than 1000 layers"),
        ("k3 = { kernel = 3 }", "k3 = 3", 14, "candidates.k3", "must be a table"),
        ("k3 = { kernel = 3 }", '"k 3" = { kernel = 3 }', 14, "candidates.k 3", "is no candidate name"),
    ],
)
def test_a_wrong_value_is_named_with_line_and_field(
    tmp_path: Path, old: str, new: str, line: int, field: str, says: str
) -> None:
    assert TINY_TOML.count(old) == 1
    message = complaint(written(tmp_path, TINY_TOML.replace(old, new)))
    assert message.startswith(f"space.toml, line {line}, {field}: ")
    assert says in message


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "says"),
    [
        ("    stride: 2", "    strid: 2", 11, "stages[1].strid", "did you mean 'stride'?"),
        ("    expansion: 4", "    expansion: four", 19, "candidates.wide.expansion", "is 'four'"),
        ("  - channels: 12\n", "  - channels: yes\n", 9, "stages[1].channels", "is True"),
        ("  k3: {kernel: 3}", "  k3:", 16, "candidates.k3", "must be a table"),
        ("norm: batch", "norm: 2024-01-01", 3, "norm", "must be text"),
    ],
)
def test_yaml_too(tmp_path: Path, old: str, new: str, line: int, field: str, says: str) -> None:
    assert TINY_YAML.count(old) == 1
    message = complaint(written(tmp_path, TINY_YAML.replace(old, new), "space.yaml"))
    assert message.startswith(f"space.yaml, line {line}, {field}: ")
    assert says in message


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", 'name = "x"\ninput = {', "a.toml, line 2: not valid TOML"),
        ("a.toml", 'name = "x"\nname = "y"\n', "a.toml, line 2: not valid TOML: Cannot overwrite a value"),
        ("a.toml", "x = " + "9" * 5000, "a.toml, line 1: not valid TOML"),
        ("a.toml", "x = " + "[" * 50_000, "a.toml: nested too deeply"),
        ("a.toml", "", "a.toml, line 1: the key 'name' is missing"),
        ("a.yaml", "name: [1,\nx: 2", "a.yaml, line 2: not valid YAML"),
        ("a.yaml", "name: a\nname: b\n", "a.yaml, line 2: the key 'name' stands twice"),
        ("a.yaml", "name: a\n? [1]\n: b\n", "a.yaml, line 2: a key must be a plain word"),
        ("a.yaml", "x: &x {a: 1}\ny: {<<: *x}\n", "a.yaml, line 2: a key must be a plain word"),
        ("a.yaml", "x: !!python/object/apply:os.system [id]\n", "'x' (known: name"),
        ("a.yaml", "x: !!int three\n", "a.yaml, line 1: the tag tag:yaml.org,2002:int has no meaning"),
        ("a.yaml", "x: 2024-99-99\n", "a.yaml, line 1: not valid YAML"),
        ("a.yaml", "x: \x00\n", "a.yaml: not valid YAML"),
        ("a.yaml", "x: &x [*x]\n", "a.yaml"),
        ("a.yaml", BILLION_LAUGHS, "more values than a space file has"),
        ("a.yaml", "[" * 5000, "a.yaml: nested too deeply"),
        ("a.yaml", "- 1\n- 2\n", "a.yaml, line 1: is a list; it must be a table"),
        ("a.yaml", "# nothing\n", "a.yaml, line 1: the file is empty"),
        ("a.json", "{}", "must end in one of .toml, .yaml, .yml"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_space(tmp_path: Path, name: str, text: str, says: str) -> None:
    assert says in complaint(written(tmp_path, text, name))


def test_no_file_a_folder_other_bytes_and_too_many(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "Is a directory" in complaint(tmp_path / "folder.toml")
    (tmp_path / "latin.toml").write_bytes(b'# ok\nname = "caf\xe9"\n')
    assert "latin.toml, line 2: not UTF-8" in complaint(tmp_path / "latin.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    assert "larger than 1 MB" in complaint(tmp_path / "big.toml")


def test_an_unknown_name_says_what_exists_and_the_nearest() -> None:
    with pytest.raises(BadInputError) as caught:
        load_space("fbnet-cifr10")
    message = str(caught.value)
    assert all(name in message for name in builtin_spaces())
    assert "did you mean 'fbnet-cifar10'?" in message


# ---- the lines of a TOML document -----------------------------------------------------------------------------------


def paths_of(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return {path}.union(*(paths_of(item, (*path, key)) for key, item in value.items()))
    if isinstance(value, list):
        return {path}.union(*(paths_of(item, (*path, index)) for index, item in enumerate(value)))
    return {path}


NASTY = (
    r'''# a comment with [brackets] = and "quotes"
title = "a \"quoted\" # no comment"
'single key' = 'C:\[x]'
a.b."c d" = 1 # dotted
long = """
  two lines, \
  a "quote" and ""two"" ]"""
four = """x""""
raw = '''
    + """'''
# not a comment ' '' '''
"""
    + r"""empty = ""
numbers = [ 1, 2.5e-3, 1979-05-27 07:32:00, # three
  [ "]", '}' ], { x = [1, 2], y.z = true }, ]

[table]
k = { }
[table.sub]
k = 0x1F
[[list]]
[list.inner]
v = [
]
[[list]]
v = "second"
[[list.deep]]
[[list.deep]]
v = false
"""
)


def test_lines_of_everything_that_toml_can_hold() -> None:
    lines = toml_lines(NASTY)
    assert set(lines) == paths_of(tomllib.loads(NASTY)) - {()}
    text = NASTY.split("\n")
    for path, line in lines.items():
        if isinstance(path[-1], str) and not text[line - 1].startswith("["):
            assert path[-1] in text[line - 1], path
    assert lines["numbers", 3, 0] == lines["numbers",] + 1
    assert text[lines["list", 1, "deep", 1, "v"] - 1] == "v = false"
    assert text[lines["list", 0, "inner", "v"] - 1] == "v = ["


keys = st.text("abcdefgh", min_size=1, max_size=3)
scalars = st.one_of(
    st.integers(-9, 9).map(str),
    st.booleans().map(lambda b: str(b).lower()),
    st.text("ab]}#,=[{'\\\" ", max_size=6).map(lambda s: '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    st.text('ab]}#,=[{" \\', max_size=6).map(lambda s: f"'{s}'"),
)
blanks = st.sampled_from(["", " ", "\n", ' # ], "\n', "\n\n  "])


def _array(parts: list[str], blank: str) -> str:
    return "[" + blank + f",{blank}".join(parts) + blank + "]"


values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(_array, st.lists(inner, max_size=3), blanks),
        st.dictionaries(keys, inner, max_size=3).map(
            lambda d: "{" + ", ".join(f"{k} = {v}" for k, v in d.items()) + "}"
        ),
    ),
    max_leaves=8,
)
tables = st.dictionaries(keys, values, max_size=4).map(lambda d: "".join(f"{k} = {v}\n" for k, v in d.items()))
documents = st.builds(
    lambda top, named, listed: (
        top
        + "".join(f"[T{k}]\n{body}" for k, body in named.items())
        + "".join(f"[[L.{k}]]\n{body}[[L.{k}]]\n" for k, body in listed.items())
    ),
    tables,
    st.dictionaries(keys, tables, max_size=2),
    st.dictionaries(keys, tables, max_size=2),
)


@settings(deadline=None)
@given(documents)
@example("")
def test_every_key_and_element_of_any_document_has_its_line(text: str) -> None:
    lines = toml_lines(text)
    assert set(lines) == paths_of(tomllib.loads(text)) - {()}
    split = text.split("\n")
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in split[line - 1]


# ---- the documentation ----------------------------------------------------------------------------------------------


def examples(kind: str) -> list[str]:
    page = (FOLDER.parents[1] / "docs" / "space-files.md").read_text(encoding="utf-8")
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


def test_the_examples_of_the_documentation_work(tmp_path: Path) -> None:
    (toml,), (yaml,), (message,) = examples("toml"), examples("yaml"), examples("text")
    space = load_space(written(tmp_path, toml))
    assert load_space(written(tmp_path, yaml, "my-space.yaml")) == space
    assert space.shape == (6, 4)
    broken = toml.replace("repeats = 3", "repeat = 3")
    assert complaint(written(tmp_path, broken, "my-space.toml")) == message.strip()


def test_the_documentation_names_every_key_kind_and_rule() -> None:
    page = (FOLDER.parents[1] / "docs" / "space-files.md").read_text(encoding="utf-8")
    keys = {"name", "input", "candidates", "stages", "stem", "head", "batch", "repeats", "stride"}
    words = {*keys, *CANDIDATE_KINDS, *FIXED_KINDS, *SKIP_RULES, *ACTIVATIONS, *NORMS}
    assert not {word for word in words if f"`{word}`" not in page}
