"""Reads messages that Kiln wrote with parsers that others wrote, and prints each leaf as JSON, an object a file.

    read.py hl7 FILE...       python-hl7
    read.py hl7apy FILE...    HL7apy, tolerant of what the sender's own segments do

A leaf is [segment, field, repetition, component, subcomponent, text], counted from 1 (segments: from 0), its escapes as written.
"""
import json
import sys


def read_hl7(text):
    import hl7

    leaves = []
    for s, segment in enumerate(hl7.parse(text)):
        name = str(segment[0])
        for n, field in enumerate(segment):
            if n == 0 or (name == "MSH" and n <= 2):
                continue
            for r, repetition in enumerate(field):
                components = repetition if isinstance(repetition, hl7.Repetition) else [repetition]
                for c, component in enumerate(components):
                    parts = component if isinstance(component, hl7.Component) else [component]
                    for p, part in enumerate(parts):
                        if str(part) != "":
                            leaves.append([s, n, r + 1, c + 1, p + 1, str(part)])
    return leaves


def read_hl7apy(text):
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.parser import parse_message

    message = parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    leaves = []
    for s, segment in enumerate(message.children):
        leaves.append([s, 0, 0, 0, 0, segment.name])
    # Written back, it must be what was read, but for delimiters and blanks at ends, which HL7apy drops.
    strip = lambda t: [line.rstrip("|^~&#!@%* ") for line in t.split("\r") if line]
    if strip(message.to_er7()) != strip(text):
        raise SystemExit("written back it differs:\n%r\n%r" % (strip(message.to_er7()), strip(text)))
    return leaves


reader = {"hl7": read_hl7, "hl7apy": read_hl7apy}[sys.argv[1]]
for path in sys.argv[2:]:
    with open(path, newline="", encoding="utf-8") as file:
        print(json.dumps(reader(file.read())))
