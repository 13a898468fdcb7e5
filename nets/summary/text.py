"""A net's layers as a table of text."""

from nets.summary.anatomy import Summary, in_words, runs


def table(summary: Summary) -> str:
    """Title, layers and totals, to print."""
    rows = [("layer", "kind", "output", "parameters", "multiply-adds")]
    for first, *others in runs(summary.layers):
        for x in first:
            does = x.does + (" (auxiliary)" if x.auxiliary else "")
            rows.append((x.name, does, x.size, *(f"{n:,}" if n else "" for n in (x.parameters, x.multiply_adds))))
        if others:
            sums = [sum(getattr(x, field) for o in others for x in o) for field in ("parameters", "multiply_adds")]
            rows.append((f"… {others[-1][0].block}", f"{len(others)} more like it", "", *(f"{n:,}" for n in sums)))
    a, b, c, d, e = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{r[0]:{a}}  {r[1]:{b}}  {r[2]:>{c}}  {r[3]:>{d}}  {r[4]:>{e}}".rstrip() for r in rows]
    rule = "-" * (a + b + c + d + e + 8)
    return "\n".join([summary.title, summary.family, "", lines[0], rule, *lines[1:], rule, *_totals(summary)])


def _totals(summary: Summary) -> list[str]:
    trained, moving, work = (summary.total(field) for field in ("parameters", "moving", "multiply_adds"))
    lines = [
        f"trainable parameters     {trained:>15,}  ({in_words(trained)})",
        f"non-trainable parameters {moving:>15,}  (moving averages of batch norm)",
        f"multiply-adds            {work:>15,}  ({in_words(work)})",
        f"size on disk             {4 * (trained + moving) / 1e6:>15,.1f}  MB (float32)",
    ]
    if any(layer.auxiliary for layer in summary.layers):
        trained, work = (summary.total(field, auxiliary=False) for field in ("parameters", "multiply_adds"))
        lines.append(
            f"without the auxiliary heads, which only help training: {in_words(trained)} trainable parameters, "
            f"{in_words(work)} multiply-adds"
        )
    return lines
