"""The table and the drawing of a net: published counts, layers by hand, SVG elements, mistakes on the command line."""

import functools
import itertools
import json
import math
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

import errors
from nets import NETS, summary
from nets.summary.__main__ import main
from nets.summary.drawing import draw
from tfcompat import tf

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COUNTS = json.loads((ROOT / "tests" / "golden" / "parameter_counts.json").read_text())
CHEAP = ("alexnet_2012", "vgg_16_transfer", "preact_resnet_20", "mobilenet_v1_025", "lenet", "residual_cnn")
SVG = "{http://www.w3.org/2000/svg}"

summarized = functools.cache(summary.summarize)  # do not change the result


@functools.cache
def drawn(name):
    return ET.fromstring(draw(summarized(name)))


def texts(element):
    return [t.text.replace("\xa0", " ").strip() for t in element.iter(f"{SVG}text") if t.text]


def groups(root, kind):
    """The titles and elements of an SVG's nodes, edges or clusters."""
    return [(g.find(f"{SVG}title").text, g) for g in root.iter(f"{SVG}g") if g.get("class") == kind]


def layer(name, of):
    return next(x for x in summarized(of).layers if x.name == name)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["nets.summary", *map(str, arguments)])
    with errors.reported():
        main()


# MobileNet as in arXiv:1704.04861 (569 and 41 million), VGG computed from table 1 of arXiv:1409.1556, ResNet-50 with
# the stride in the first 1×1, as in Keras (3.8 billion in arXiv:1512.03385), AlexNet computed from its figure.
@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("vgg_16", 138_357_544, 15.47e9),
        ("vgg_19", 143_667_240, 19.63e9),
        pytest.param("resnet50_keras", 25_583_592, 3.86e9, marks=pytest.mark.slow),
        ("mobilenet_v1", 4_231_976, 569e6),
        ("mobilenet_v1_025", 470_072, 41e6),
        ("alexnet_2012", 60_965_224, 724e6),
    ],
)
def test_published_totals(name, parameters, multiply_adds):
    assert summarized(name).total("parameters") == parameters
    assert summarized(name).total("multiply_adds") == pytest.approx(multiply_adds, rel=0.01)


def test_resnet_v1_50_by_hand():
    """TF-Slim has the stride in the last unit's 3×3; with the stride in the first unit's it is 4.09 billion."""
    total, channels = 112**2 * 64 * 7 * 7 * 3 + 2048 * 1000, 64
    for units, width, side in ((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)):
        last = side if side == 7 else side // 2
        first = side**2 * (channels * 4 * width + channels * width + 9 * width**2 + 4 * width**2)
        channels = 4 * width
        total += first + (units - 2) * side**2 * 17 * width**2 + side**2 * 4 * width**2 + last**2 * 13 * width**2
    assert summarized("resnet_v1_50").total("multiply_adds") == total == 3_482_255_360
    assert summarized("resnet_v1_50").total("parameters") == 25_557_032


def test_large_numbers_have_words():
    assert [summary.in_words(n) for n in (8160, 51_264, 1_234_567, 3_482_255_360)] == [
        *("8,160", "0.05 million", "1.23 million", "3.48 billion")
    ]


def test_auxiliary_heads_are_marked():
    net = summarized("googlenet_2014")
    heads = {x.name.partition("/")[0] for x in net.layers if x.auxiliary}
    assert heads == {"aux_4a", "aux_4d"}
    # 4×4 maps of 512 and 528 channels: 1×1 to 128, 2,048 to 1,024, 1,024 to 1,000.
    work = sum(16 * c * 128 + 2048 * 1024 + 1024 * 1000 for c in (512, 528))
    assert net.total("multiply_adds") - net.total("multiply_adds", auxiliary=False) == work
    assert net.total("multiply_adds", auxiliary=False) == pytest.approx(1.58e9, rel=0.01)
    biases = 2 * (128 + 1024 + 1000)
    without = sum(c * 128 + 2048 * 1024 + 1024 * 1000 for c in (512, 528)) + biases
    assert net.total("parameters", auxiliary=False) == 13_378_280 - without
    assert "without the auxiliary heads" in summary.table(net)
    assert "auxiliary" not in summary.table(summarized("lenet"))


def test_number_of_classes_and_image_size():
    small = summary.summarize("preact_elu", num_classes=10)
    assert small.total("parameters") == 377_482
    # By hand: there is no gamma, so each batch norm of 64 channels has 64 betas and twice 64 moving averages.
    assert small.total("moving") == 10 * 2 * 64
    larger = summary.summarize("preact_elu", num_classes=10, image_size=64)
    assert larger.total("parameters") == 377_482
    assert larger.total("multiply_adds") == 4 * small.total("multiply_adds")


def test_lenet_by_hand():
    rows = [(x.name, x.does, x.size, x.parameters, x.multiply_adds) for x in summarized("lenet").layers]
    assert rows == [
        ("conv1", "conv 5×5", "28×28×32", 832, 28 * 28 * 32 * 5 * 5 * 1),
        ("pool1", "max pool 2×2, stride 2", "14×14×32", 0, 0),
        ("conv2", "conv 5×5", "14×14×64", 51_264, 14 * 14 * 64 * 5 * 5 * 32),
        ("pool2", "max pool 2×2, stride 2", "7×7×64", 0, 0),
        ("fc3", "dense", "1,024", 3136 * 1024 + 1024, 3136 * 1024),
        ("fc4", "dense", "1,000", 1024 * 1000 + 1000, 1024 * 1000),
    ]


def test_a_depthwise_layer_and_a_grouped_one_by_hand():
    depthwise = layer("Conv2d_2_depthwise", "mobilenet_v1_025")  # 16 channels; gamma and beta, mean and variance
    assert (depthwise.does, depthwise.shape) == ("depthwise 3×3, stride 2", [56, 56, 16])
    assert (depthwise.parameters, depthwise.moving) == (3 * 3 * 16 + 2 * 16, 2 * 16)
    assert depthwise.multiply_adds == 56 * 56 * 16 * 9
    grouped = layer("conv2", "alexnet_2012")
    assert (grouped.does, grouped.shape) == ("conv 5×5, 2 groups", [27, 27, 256])
    assert (grouped.parameters, grouped.multiply_adds) == (25 * 48 * 256 + 256, 27 * 27 * 256 * 25 * 48)


def test_batch_norm_has_a_line_only_without_a_layer_before_it():
    rows = [(x.name, x.kind) for x in summarized("preact_resnet_20").layers if x.block == "block1/block1_1"]
    kinds = ("preact", "batch norm"), ("conv1", "conv"), ("conv2", "conv")
    assert rows == [(f"block1/block1_1/{n}", kind) for n, kind in kinds] + [("block1/block1_1", "add")]
    assert layer("block1/block1_1/preact", "preact_resnet_20").parameters == 2 * 16
    assert layer("block1/block1_1/conv1", "preact_resnet_20").parameters == 9 * 16 * 16 + 2 * 16


@pytest.mark.parametrize("name", [*CHEAP, *(pytest.param(n, marks=pytest.mark.slow) for n in COUNTS if n not in CHEAP)])
def test_layers_add_up_to_the_nets_variables(name):
    net, built = NETS[name], summarized(name)
    assert sum(x.parameters for x in built.layers) == COUNTS[name]
    with tf.Graph().as_default():
        net.build(tf.zeros([1, net.image_size, net.image_size, net.channels]), 1000, False, 0.0)
        shapes = {v.op.name.removeprefix(f"{net.scope}/"): v.shape.as_list() for v in tf.global_variables()}
    assert sum(x.moving for x in built.layers) == sum(math.prod(s) for n, s in shapes.items() if "/moving_" in n)
    # Every weight is used once at every position of the output, in every kind of layer.
    for path, kernel in shapes.items():
        if path.endswith("weights"):
            # A separable convolution has two layers of its name.
            kinds = {"depthwise_weights": ["depthwise"], "weights": ["conv", "dense"]}.get(path.rpartition("/")[2])
            (x,) = (x for x in built.layers if x.name == path.rpartition("/")[0] and x.kind in (kinds or ["conv"]))
            assert x.multiply_adds == math.prod(kernel) * math.prod(x.shape[:-1]), path
    assert sum(bool(x.multiply_adds) for x in built.layers) == sum(path.endswith("weights") for path in shapes)
    assert len({(x.name, x.kind) for x in built.layers}) == len(built.layers)


@pytest.mark.parametrize("name", ["resnet_v1_50", "lenet"])
def test_the_printed_columns_are_aligned_and_add_up(name):
    lines = summary.table(summarized(name)).splitlines()
    rules = [i for i, line in enumerate(lines) if set(line) == {"-"}]
    header, rows = lines[rules[0] - 1], lines[rules[0] + 1 : rules[1]]
    for column in "parameters", "multiply-adds":
        end = header.index(column) + len(column)
        cells = [row[:end].split()[-1] for row in rows if len(row) >= end and row[end - 1] != " "]
        total = sum(int(cell.replace(",", "")) for cell in cells)
        assert any(f"{total:,}" in line for line in lines[rules[1] :]), column
    end = header.index("output") + len("output")
    assert all(row[end - 1].isdigit() and row[end : end + 1] in ("", " ") for row in rows if "more like it" not in row)
    assert lines[0] == f"{name}, pictures of {summarized(name).picture}, 1,000 classes"
    assert lines[1].startswith("LeNet as in TF-Slim" if name == "lenet" else "ResNets for ImageNet, v1 and v2")
    assert max(map(len, lines)) <= 120


def test_repeated_units_are_printed_once():
    lines = summary.table(summarized("resnet_v1_50")).splitlines()
    (line,) = [line for line in lines if line.startswith("… block3")]
    unit = sum(x.multiply_adds for x in summarized("resnet_v1_50").layers if x.block == "block3/unit_2/bottleneck_v1")
    assert line.split()[1:6] == ["block3/unit_5/bottleneck_v1", "3", "more", "like", "it"]
    assert line.endswith(f" {3 * unit:,}")
    assert not any(x in line for line in lines for x in ("block3/unit_3", "block3/unit_4"))
    assert any(line.startswith("block3/unit_6/bottleneck_v1/conv2") for line in lines)


def test_googlenet_is_drawn_with_four_branches_a_module_and_two_auxiliary_heads():
    root, layers = drawn("googlenet_2014"), summarized("googlenet_2014").layers
    frames = dict(groups(root, "cluster"))
    modules = [x for x in layers if x.kind == "concat"]
    assert len(modules) == 9
    edges = [title.split("->") for title, _ in groups(root, "edge")]
    for module in modules:
        assert texts(frames[f"cluster_{module.block}"]) == [module.name]
        assert sum(target == str(module.index) for _, target in edges) == 4
    for head, below in (("aux_4a", "Mixed_4b"), ("aux_4d", "Mixed_4e")):
        assert texts(frames[f"cluster_{head}"]) == [f"{head} (for training only)"]
        first = next(x.index for x in layers if x.block == head)
        (source,) = [source for source, target in edges if target == str(first)]
        assert layers[int(source)].name == below
        assert not any(source == str(first) for source, _ in edges)  # nothing is computed from a head
    words = " ".join(texts(root))
    assert all(x.name.rpartition("/")[2] in words for x in layers if x.kind != "concat")
    assert all(x.size in words for x in modules)


@pytest.mark.parametrize("name", ["resnet_v1_50", "googlenet_2014"])
def test_captions_lie_on_white_over_the_arrows(name):
    (graph,) = [g for g in drawn(name).iter(f"{SVG}g") if g.get("class") == "graph"]
    kinds = [g.get("class") for g in graph.iter(f"{SVG}g")][1:]
    frames = kinds.count("cluster")
    assert frames > 5
    assert kinds[-frames:] == ["cluster"] * frames
    for _, frame in groups(graph, "cluster"):
        shapes = [shape for shape in frame if shape.tag in (f"{SVG}rect", f"{SVG}text")]
        for white, text in zip(shapes[::2], shapes[1::2], strict=True):
            assert (white.get("fill"), text.tag) == ("white", f"{SVG}text")
            assert float(white.get("y")) < float(text.get("y")) < float(white.get("y")) + float(white.get("height"))
            left, width, x = float(white.get("x")), float(white.get("width")), float(text.get("x"))
            assert width > 5 * len(text.text)
            assert x == pytest.approx(left + (width / 2 if text.get("text-anchor") == "middle" else 2), abs=0.02)


def test_parallel_branches_are_not_repeats():
    root, layers = drawn("inception_strided"), summarized("inception_strided").layers
    assert {title for title, _ in groups(root, "cluster")} == {f"cluster_branch{i}" for i in range(4)}
    assert [w.split() for w in texts(root) if w.startswith("fc")] == [["fc"]] * 4
    concat = next(x.index for x in layers if x.kind == "concat")
    assert sum(title.endswith(f"->{concat}") for title, _ in groups(root, "edge")) == 4
    assert "more like it" not in summary.table(summarized("inception_strided"))


def test_resnet_is_drawn_with_its_shortcuts():
    root, layers = drawn("resnet_v1_50"), summarized("resnet_v1_50").layers
    words = texts(root)
    for block in ("block1/unit_1", "block1/unit_2", "block1/unit_3", "block2/unit_4", "block3/unit_6", "block4/unit_2"):
        assert block in words
    assert [w for w in words if "alike" in w] == ["… unit_3, 2 alike", "… unit_5, 4 alike", "… unit_3, 2 alike"]
    past = [tuple(map(int, title.split("->"))) for title, g in groups(root, "edge") if "shortcut" in texts(g)]
    names = [(layers[i].block, layers[j].name) for i, j in past]
    assert [j.removesuffix("/bottleneck_v1") for _, j in names] == [
        f"block{i}/unit_2" for i in (1, 2, 3, 4)
    ]  # the other units have a layer in their shortcut
    assert all(layers[i].kind == layers[j].kind == "add" for i, j in past)
    into_sums = [title for title, _ in groups(root, "edge") if layers[int(title.split("->")[1])].kind == "add"]
    assert len(into_sums) == 2 * sum(w == "+" for w in words) == 2 * 11


@pytest.mark.parametrize("name", ["vgg_16", "mobilenet_v1_025", "lenet"])
def test_a_chain_is_drawn_as_one(name):
    root = drawn(name)
    nodes, edges = (dict(groups(root, kind)) for kind in ("node", "edge"))
    order = sorted(map(int, nodes))
    assert list(edges) == [f"{i}->{j}" for i, j in itertools.pairwise(order)]
    assert order[0] == -1
    assert texts(nodes["-1"]) == [f"picture {summarized(name).picture}"]
    words = texts(root)
    if name == "vgg_16":
        assert [w.split("conv 3×3")[0].split() for w in words if "…" in w] == [
            [f"conv{i}_1", "…", f"conv{i}_{n}"] for i, n in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
        ]
        assert len(nodes) == 1 + 5 + 5 + 3
        assert {"224×224×64", "7×7×512", "1,000"} <= set(words)
    if name == "mobilenet_v1_025":
        frames = {title.removeprefix("cluster_") for title, _ in groups(root, "cluster")}
        assert frames == {f"Conv2d_{i}" for i in (*range(1, 8), 12, 13)} | {"Logits"}


def test_the_program_prints_and_draws(tmp_path):
    command = [sys.executable, "-m", "nets.summary", "lenet", "--num-classes", "10", "--svg", tmp_path / "lenet.svg"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == summary.table(summary.summarize("lenet", 10)) + "\n"
    assert "lenet, pictures of 28×28×1, 10 classes" in texts(ET.parse(tmp_path / "lenet.svg"))
    assert [path.name for path in tmp_path.iterdir()] == ["lenet.svg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lennet"], "unknown net 'lennet': did you mean lenet?"),
        (["vgg_16", "--image-size", 100], "cannot take pictures of 100×100: --image-size must be at least 224"),
        (["lenet", "--image-size", 0], "--image-size 0: must be at least 1 and at most 100,000"),
        (["lenet", "--num-classes", 0], "--num-classes 0: must be at least 1"),
        (["lenet", "--svg", "lenet.png"], "--svg lenet.png must be a .svg"),
        (["lenet", "--svg", "nowhere/lenet.svg"], "--svg nowhere/lenet.svg must be a .svg in a directory"),
        (["lenet", "--svg", "taken.svg"], "--svg taken.svg must be a .svg"),
        (["vgg_16", "--image-size", 100, "--svg", "vgg.svg"], "cannot take pictures of 100×100"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_files(arguments, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.svg").mkdir()
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["taken.svg"]


@pytest.mark.slow
def test_the_cells_of_a_net_without_scope_are_blocks():
    layers = summarized("nasnet_mobile").layers
    blocks = {layer.block for layer in layers}
    cells = ["cell_stem_0", "cell_stem_1", *(f"cell_{i}" for i in range(12))]
    assert {block for block in blocks if block.startswith("cell_")} == set(cells)
    assert not any("comb_iter" in block or block.startswith("nasnet") for block in blocks)
    alike = [run[-1][0].block for run in summary.runs(layers) if len(run) > 1]
    assert alike == ["cell_3", "cell_7", "cell_11"]
    separable = [layer.kind for layer in layers if layer.name == "cell_0/comb_iter_0/left/separable_5x5_1"]
    assert separable == ["depthwise", "conv"]
