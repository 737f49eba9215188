"""Judges every resource of every Bundle in a folder with PyPI fhir.resources; prints faults and exits 1 if there are any."""

import json
import pathlib
import sys

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError


def main() -> int:
    if len(sys.argv) != 2:
        print("python judge.py FOLDER", file=sys.stderr)
        return 2
    judged = faults = 0
    for file in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
        for n, entry in enumerate(json.loads(file.read_text(encoding="utf-8")).get("entry", [])):
            resource = entry.get("resource")
            if resource is None:
                continue
            judged += 1
            try:
                get_fhir_model_class(resource["resourceType"]).model_validate(resource)
            except ValidationError as error:
                for fault in error.errors():
                    faults += 1
                    print(f"{file.name}: entry {n} {resource['resourceType']}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}")
    print(f"fhir.resources: {judged} resources judged, {faults} faults")
    return 2 if judged == 0 else 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
