"""Draws a net: a box for each chain of layers, a frame for each block, an arrow for each tensor."""

import html
import itertools
import re

import pygraphviz

from nets.summary import Layer, Summary, in_words, runs
from tfcompat import hidden_stderr

COLOURS = {
    "conv": "#cfe2f3",
    "depthwise": "#b7e1e4",
    "dense": "#d5e8d4",
    **dict.fromkeys(("max pool", "average pool"), "#fde2c0"),
    **dict.fromkeys(("batch norm", "local response norm"), "#e6dcf0"),
    **dict.fromkeys(("add", "concat"), "#fff2b3"),
}
FONT, SHORTCUT = "Helvetica,Arial,sans-serif", "#c0392b"
CAPTION_SIZE = 10  # points


def draw(summary: Summary) -> bytes:
    """Draws the net as an SVG file, and returns its content."""
    graph = pygraphviz.AGraph(directed=True, strict=False)
    graph.graph_attr.update(ranksep=0.2, nodesep=0.2, labelloc="t", labeljust="l", fontname=FONT, fontsize=11)
    graph.node_attr.update(shape="plain", fontname=FONT, fontsize=10)
    graph.edge_attr.update(color="#666666", arrowsize=0.6, fontname=FONT, fontsize=9)
    graph.add_node(-1, label=f" picture {summary.picture} ", shape="box", style="rounded", height=0.3)
    shown, captions = {-1: -1}, {}  # layer to the layer drawn for it; block to the caption of its frame
    for run in runs(summary.layers):
        first, last = (re.sub(r"/bottleneck_v\d$", "", block[0].block) for block in (run[0], run[-1]))
        alike = f"\\l… {last.rpartition('/')[2]}, {len(run)} alike\\l" if len(run) > 1 else ""
        training = " (for training only)" if run[0][0].auxiliary else ""
        captions[run[0][0].block] = first + training + alike
        shown |= {x.index: y.index for block in run for x, y in zip(block, run[0], strict=True)}
    layers = {x.index: x for x in summary.layers if shown[x.index] == x.index}
    edges = [(shown[i], x.index) for x in layers.values() for i in x.inputs]
    boxes: dict[int, list[Layer]] = {}
    box_of = {-1: -1}  # layer to the first layer of its box
    for x in layers.values():
        source = layers.get(shown[x.inputs[0]])
        reads = [source for source, _ in edges]
        chained = source and source.block == x.block and reads.count(source.index) == 1
        alone = len(x.inputs) > 1 or (source and len(source.inputs) > 1)
        box_of[x.index] = box_of[source.index] if chained and not alone else x.index
        boxes.setdefault(box_of[x.index], []).append(x)
    for box, members in boxes.items():
        graph.add_node(box, label=_label(members), tooltip="\\n".join(x.name for x in members))
    for i, j in edges:
        if box_of[i] != box_of[j]:
            past = layers[j].kind == "add" and (i < 0 or layers[i].block != layers[j].block)
            # Weight 0: units stay in one column, and the shortcut is the curved edge.
            look = {"color": SHORTCUT, "fontcolor": SHORTCUT, "label": " shortcut", "weight": 0} if past else {}
            graph.add_edge(box_of[i], box_of[j], **look)
    for block, caption in captions.items():
        inside = [box for box, members in boxes.items() if members[0].block == block]
        if len(inside) > 1 or "alike" in caption or len(_lines(boxes[inside[0]])) > 1:
            graph.add_subgraph(
                inside, f"cluster_{block}", label=caption, color="#aaaaaa", style="rounded", fontsize=CAPTION_SIZE
            )
    amounts = [
        f"{in_words(summary.total('parameters', heads))} parameters, "
        f"{in_words(summary.total('multiply_adds', heads))} multiply-adds"
        for heads in (True, False)
    ]
    alone = f"\\l{amounts[1]} without the auxiliary heads" if amounts[1] != amounts[0] else ""
    graph.graph_attr["label"] = f"{summary.title}\\l{amounts[0]}{alone}\\l"
    with hidden_stderr(b""):  # the font library in pygraphviz's wheel warns about the system's settings
        return _captions_last(graph.draw(format="svg", prog="dot").decode()).encode()


def _captions_last(svg: str) -> str:
    """Draws the frames after the arrows, which else run through the captions, and each caption on white."""

    def on_white(text: re.Match) -> str:
        x, y = float(text[2]), float(text[3])
        width = 0.5 * CAPTION_SIZE * len(html.unescape(text[4])) + 4  # of common fonts, which differ
        left = x - (width / 2 if text[1] == "middle" else 2)
        box = f'x="{left:.2f}" y="{y - CAPTION_SIZE:.2f}" width="{width:.2f}" height="{1.3 * CAPTION_SIZE:.2f}"'
        return f'<rect {box} fill="white"/>\n{text[0]}'

    frames = re.findall(r'<g id="clust\d+" class="cluster">.*?</g>\n', svg, re.DOTALL)
    for frame in frames:
        svg = svg.replace(frame, "")
    drawn = [
        re.sub(r'<text [^>]*text-anchor="(\w+)" x="([^"]+)" y="([^"]+)"[^>]*>([^<]*)</text>', on_white, frame)
        for frame in frames
    ]
    before, end, after = svg.rpartition("</g>")
    return before + "".join(drawn) + end + after


def _lines(members: list[Layer]) -> list[list[Layer]]:
    """The layers of a box; consecutive equal layers are in one list."""
    return [list(same) for _, same in itertools.groupby(members, key=lambda x: (x.does, x.shape[-1]))]


def _label(members: list[Layer]) -> str:
    cells = ""
    for line in _lines(members):
        x, names = line[0], [html.escape(x.name.rpartition("/")[2]) for x in line]
        does = f"{x.does}, {x.shape[-1]:,}" if x.kind in ("conv", "depthwise", "dense") else x.does
        text = " … ".join(dict.fromkeys((names[0], names[-1]))) + f'&#160; <FONT COLOR="#444444">{does}</FONT>'
        text = {"add": "+", "concat": "concat"}.get(x.kind, text)
        cells += f'<TR><TD BGCOLOR="{COLOURS[x.kind]}">{text}</TD></TR>'
    size = f'<TR><TD><FONT COLOR="#444444">{members[-1].size}</FONT></TD></TR>'
    return f'<<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="0" CELLPADDING="4" COLOR="#888888">{cells}{size}</TABLE>>'
