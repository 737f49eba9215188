"""Asks a FHIR server's $validate about every resource of every Bundle in the folders; prints faults and exits 1 if there are any.

The server of tests/servers/fhir-server judges invariants, which the other two judges do not:
    node server.mjs --port 8090 &    python validate.py http://127.0.0.1:8090/fhir FOLDER...
"""

import json
import pathlib
import sys
import urllib.error
import urllib.request


def bare(node):
    """A copy without the extensions of primitives (`_status` beside `status`).

    This server calls any code that has an extension unknown to its value set, also a right one: the same resource without `_status` passes.
    The other two judges see them; the code itself is judged here, too.
    """
    if isinstance(node, dict):
        return {key: bare(value) for key, value in node.items() if not (key.startswith("_") and key[1:] in node)}
    return [bare(value) for value in node] if isinstance(node, list) else node


def outcome(base: str, resource: dict) -> dict:
    url = f"{base}/{resource['resourceType']}/$validate"
    request = urllib.request.Request(url, data=json.dumps(resource).encode(), headers={"Content-Type": "application/fhir+json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def main() -> int:
    if len(sys.argv) < 3:
        print("python validate.py BASE FOLDER...", file=sys.stderr)
        return 2
    judged = faults = 0
    for folder in sys.argv[2:]:
        for file in sorted(pathlib.Path(folder).glob("*.json")):
            for n, entry in enumerate(json.loads(file.read_text(encoding="utf-8")).get("entry", [])):
                if "resource" not in entry:
                    continue
                judged += 1
                for issue in outcome(sys.argv[1], bare(entry["resource"])).get("issue", []):
                    if issue["severity"] in ("error", "fatal"):
                        faults += 1
                        said = issue.get("details", {}).get("text") or issue.get("diagnostics")
                        print(f"{file.name}: entry {n} {entry['resource']['resourceType']}: {said} {issue.get('expression')}")
    print(f"$validate: {judged} resources judged, {faults} faults")
    return 2 if judged == 0 else 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
