"""The numbers of pictures by class and split, as a table. Free of TensorFlow."""

from collections import Counter
from collections.abc import Sequence

from errors import printable

FEW_CLASSES = 50  # up to here all are printed; of more, the largest and the smallest


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as '1 fault' and '2,000 faults'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe(balance: dict[str, Counter], class_names: Sequence[str]) -> str:
    """A table of the number of records by class and split."""
    splits = [split for split, counts in balance.items() if counts]
    totals = [sum(counts[label] for counts in balance.values()) for label in range(len(class_names))]
    labels = range(len(class_names))
    if len(labels) > FEW_CLASSES:
        ranked = sorted(labels, key=lambda label: (-totals[label], label))
        labels = [*ranked[:5], *ranked[-5:]]
    rows = [
        (printable(class_names[label][:40]), *(f"{balance[split][label]:,}" for split in splits)) for label in labels
    ]
    rows = [("class", *splits), *rows, ("all", *(f"{balance[split].total():,}" for split in splits))]
    width = max(len(name) for name, *_ in rows)
    lines = [f"{name:<{width}}" + "".join(f"{number:>12}" for number in numbers) for name, *numbers in rows]
    if len(labels) < len(totals):
        lines.insert(6, f"… {len(totals) - 10} classes between these")
    if any(totals):
        lines.append(f"largest class: {max(totals) / max(1, min(totals)):.1f} × the smallest")
    return "\n".join(lines)
