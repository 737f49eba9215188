// Judges every resource of every Bundle in a folder with npm `fhir`; prints faults and exits 1 if there are any.
const fs = require("fs");
const path = require("path");
const { Fhir } = require("fhir");

const folder = process.argv[2];
if (!folder) { console.error("node judge.js FOLDER"); process.exit(2); }
const fhir = new Fhir();
let judged = 0, faults = 0;
for (const file of fs.readdirSync(folder).filter((f) => f.endsWith(".json")).sort()) {
  const bundle = JSON.parse(fs.readFileSync(path.join(folder, file), "utf8"));
  for (const [n, entry] of (bundle.entry ?? []).entries()) {
    if (!entry.resource) continue;
    judged += 1;
    for (const m of fhir.validate(entry.resource, { errorOnUnexpected: true }).messages) {
      if (m.severity !== "error" && m.severity !== "fatal") continue;
      faults += 1;
      console.log(`${file}: entry ${n} ${entry.resource.resourceType}: ${m.location}: ${m.message}`);
    }
  }
}
console.log(`npm fhir: ${judged} resources judged, ${faults} faults`);
process.exit(judged === 0 ? 2 : faults ? 1 : 0);
