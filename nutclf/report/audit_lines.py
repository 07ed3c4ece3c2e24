"""An audit on the terminal: counts, then what to look at first; plain text, also in a pipe."""

from collections.abc import Iterator, Sequence

from nutclf.data.audit import Finding
from nutclf.data.duplicates import Pair
from nutclf.data.listing import quote
from nutclf.search.audit_record import Audit

SHOWN = 10
"""Lines of each kind; all are in `audit.json`."""


def audit_lines(audit: Audit) -> list[str]:
    """What a person reads; the full record is named in the last line."""
    files, labels = audit.files, audit.labels
    lines = [*_counts(audit)]
    lines += _listed("Unreadable", [_finding(found) for found in files.unreadable])
    lines += _listed("Content is not what the name says", [_finding(f) for f in files.mistyped])
    across = [pair for pair in files.pairs if pair.across_splits]
    lines += _listed("One picture in two splits", [_pair(pair) for pair in across])
    disagree = [pair for pair in files.pairs if pair.labels_disagree]
    lines += _listed("One picture under two labels", [_pair(pair) for pair in disagree])
    lines += _listed("Odd", [_finding(found) for found in files.odd])
    lines += _suspects(audit)
    if files.leaks:
        listed = ", ".join(map(quote, sorted(files.leaks)))
        lines += ["", f"Left out of the test figures at promotion: {listed}"]
    skipped = [f"Labels were not judged: {labels.skipped}"] if labels.skipped else []
    return [*lines, "", *skipped, f"All of it, with a contact sheet: {audit.copy}/"]


def _counts(audit: Audit) -> Iterator[str]:
    files, labels = audit.files, audit.labels
    pairs = files.pairs
    across = sum(pair.across_splits for pair in pairs)
    yield f"{files.n_images} images of {len(files.classes)} classes"
    for split, counts in files.balance.items():
        least, most = min(counts, key=counts.get), max(counts, key=counts.get)
        each = f"{counts[least]} to {counts[most]} a class ({quote(least)}, {quote(most)})"
        yield _row(f"  {split}", sum(counts.values()), each if counts[least] < counts[most] else "")
    yield _row("unreadable files", len(files.unreadable))
    yield _row("content is not what the name says", len(files.mistyped))
    equal = sum(pair.equal_bytes for pair in pairs)
    yield _row("pairs of equal files", equal)
    yield _row("pairs of near duplicates", len(pairs) - equal)
    yield _row("  of all pairs: in two splits", across)
    yield _row("  of all pairs: under two labels", sum(pair.labels_disagree for pair in pairs))
    yield _row("odd in size, shape, mode or turn", len({found.path for found in files.odd}))
    if labels.judged_by:
        judged = f"of {labels.n_images} labels"
        yield _row("probable label errors", len(labels.suspects), judged)


def _row(what: str, count: int, more: str = "") -> str:
    return f"{what:<36}{count:>6}   {more}".rstrip()


def _listed(title: str, found: Sequence[str]) -> list[str]:
    if not found:
        return []
    more = [f"  and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ["", f"{title}:", *(f"  {line}" for line in found[:SHOWN]), *more]


def _finding(found: Finding) -> str:
    return f"{quote(found.path)}: {found.what}"


def _pair(pair: Pair) -> str:
    labels = f"; labels {quote(pair.labels[0])} and {quote(pair.labels[1])} disagree"
    told = labels if pair.labels_disagree else ""
    return f"{quote(pair.second)} is {quote(pair.first)}: {pair.how_like}{told}"


def _suspects(audit: Audit) -> list[str]:
    lines = [
        f"{row.score:.4f}  {quote(row.label)}, looks like {quote(row.looks_like)}: "
        f"{quote(row.path)}"
        for row in audit.labels.suspects.itertuples()
    ]
    title = f"Probable label errors, the surest (0) first, by {audit.labels.judged_by}"
    return _listed(title, lines)
