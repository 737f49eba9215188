#!/bin/sh
# Usage: tests/judges/hl7.sh FOLDER...
# HL7's own validator over the Bundles and resources of the folders (tests/servers/hapi, built with `mvn package`); first it must reject each
# of tests/judges/invalid. What is explained in tests/judges/hl7-explained.tsv counts as no error. `--warnings` prints warnings, too; hl7-warnings.md explains them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
judge() {
    java -Xmx1500m -XX:+UseSerialGC -cp "$here/../servers/hapi/target/hapi.jar" kiln.tests.Judge "$@" 2>/dev/null
}
invalid=$(ls "$here/invalid" | wc -l)
rejected=$(judge "$here/invalid" | sed -n 's/^\(ERROR\|FATAL\) \([a-z0-9-]*\.json\):.*/\2/p' | sort -u | wc -l)
[ "$rejected" -eq "$invalid" ] || { echo "only $rejected of $invalid invalid resources are rejected" >&2; exit 1; }
echo "all $invalid invalid resources are rejected"
judge --accept "$here/hl7-explained.tsv" "$@"
