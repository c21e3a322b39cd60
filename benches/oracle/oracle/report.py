"""Comparisons as text."""


def share(part, whole):
    return f"{100 * part / whole:.2f}" if whole else "-"


def counted(counter):
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items(), key=lambda item: -item[1])) or "-"


def microseconds(value):
    return "-" if value is None else f"{value:+.0f}"


def table(comparison):
    rows = [["service", "kind", "expected", "SDK", "found", "%", "right", "WRONG", "absent", "diff. p50 us", "p99 us"]]
    for end in comparison.ends.values():
        wrong = counted(end.wrong)
        if end.skipped:
            wrong = f"{wrong}; skipped {counted(end.skipped)}"
        if end.dangling:
            wrong = f"{wrong}; dangling {counted(end.dangling)}"
        row = [end.service, end.kind, end.expected, end.told, end.found, share(end.found, end.expected),
               counted(end.right), wrong, counted(end.absent),
               microseconds(end.difference_us(0.5)), microseconds(end.difference_us(0.99))]
        rows.append([str(cell) for cell in row])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numbers = {2, 3, 4, 5, 9, 10}
    lines = []
    for row in rows:
        cells = [cell.rjust(width) if column in numbers else cell.ljust(width)
                 for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def summary(comparison):
    """One line of totals, and one for each thing that is not as it should be."""
    ends = comparison.ends.values()
    expected, found = sum(end.expected for end in ends), sum(end.found for end in ends)
    right = sum(sum(end.right.values()) for end in ends)
    wrong = sum(sum(end.wrong.values()) for end in ends)
    skipped = sum(sum(end.skipped.values()) for end in ends)
    dangling = sum(sum(end.dangling.values()) for end in ends)
    absent = sum(sum(end.absent.values()) for end in ends)
    lines = [f"found {found} of {expected} ({share(found, expected)} %); parents: {right} right, {wrong} WRONG "
             f"({share(wrong, right + wrong)} %), {skipped} further up, {dangling} dangling, {absent} absent"]
    for name, count in {
        "two spans for one end": sum(end.twice for end in ends),
        "without a certain end": sum(end.without_end for end in ends),
        "the SDK does not say whose child": sum(end.untold for end in ends),
        "the SDK has two spans for one end": comparison.truth.twice,
        "ids are not the SDK's": sum(end.other_ids for end in ends),
    }.items():
        if count:
            lines.append(f"  {name}: {count}")
    if comparison.mode == "propagated":
        lines.append(f"  ids are the SDK's: {sum(end.same_ids for end in ends)}")
    return "\n".join(lines)
