#!/usr/bin/env python3
"""Takes the facts that are needed from the guide's sheets: take.py FOLDER, with the guide's CSV files in messages, segments, datatypes and codesystems."""
import csv
import glob
import os
import re
import sys


def clean(text):
    return re.sub(r"\s+", " ", text).strip()


def sheets(folder, kind):
    for path in sorted(glob.glob(os.path.join(folder, kind, "*.csv"))):
        name = re.sub(r"^HL7 .*?_ (.*?) - [^-]*\.csv$", r"\1", os.path.basename(path))
        rows = list(csv.reader(open(path, encoding="utf-8-sig")))
        yield name, [clean(c) for c in rows[1]], [(n + 1, [clean(c) for c in r]) for n, r in enumerate(rows) if n > 1]


def cell(row, n):
    return row[n] if n is not None and n < len(row) else ""


def condition(row):
    return cell(row, 6) or cell(row, 8) or cell(row, 7)


def write(kind, lines):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), kind + ".tsv"), "w", encoding="utf-8") as out:
        out.write("".join(lines))


folder = sys.argv[1]
for kind in ("segments", "datatypes"):
    lines = []
    for name, header, rows in sheets(folder, kind):
        assigned = next((n for n, c in enumerate(header) if c in ("Assignment", "Derived Mapping")), None)
        kept = [(n, r) for n, r in rows if cell(r, 9)]
        lines.append(f"# {name}\n")
        lines += ["\t".join([str(n), cell(r, 1), cell(r, 3), condition(r), cell(r, 9), cell(r, 11), cell(r, 14), cell(r, 15), cell(r, assigned)]) + "\n" for n, r in kept]
    write(kind, lines)

lines = []
for name, _, rows in sheets(folder, "messages"):
    lines.append(f"# {name}\n")
    lines += ["\t".join([str(n), cell(r, 1), condition(r), cell(r, 9), cell(r, 10)]) + "\n" for n, r in rows if cell(r, 9)]
write("messages", lines)

lines = []
for name, header, rows in sheets(folder, "codesystems"):
    codes = [n for n, c in enumerate(header) if c == "Code"]
    systems = [n for n, c in enumerate(header) if c == "Code System"]
    asked = [n for n, c in enumerate(header) if c.startswith("Computable") or c == "Narrative"]
    lines.append(f"# {name}\n")
    for n, r in rows:
        if cell(r, codes[1]):
            when = next((cell(r, a) for a in asked if cell(r, a)), "")
            lines.append("\t".join([str(n), cell(r, codes[0]), cell(r, systems[0]), when, cell(r, codes[1]), cell(r, systems[1]) if len(systems) > 1 else ""]) + "\n")
write("codesystems", lines)
