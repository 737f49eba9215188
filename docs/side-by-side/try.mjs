// Renders template.liquid as it stands and with each mistake, with the engine's defaults and with its strict options.
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { Liquid } from 'liquidjs';

const folder = process.argv[2];
const read = (name) => readFileSync(`${folder}/${name}`, 'utf8');

// Segments by name; fields by number, as lists of repetitions; components by number. What HL7 has and the message has not is null, so that the strict
// options find only what HL7 does not have.
const FIELDS = 40;
const COMPONENTS = 18;
const segments = {};
for (const line of read('admit.hl7').split('\n').filter(Boolean)) {
  const fields = line.split('|');
  const name = fields[0];
  if (name === 'MSH') fields.splice(1, 0, '|');
  segments[name] = fields.map((field, n) => (n === 0 || field === '' || (name === 'MSH' && n < 3)
    ? [] : field.split('~').map((repetition) => {
      const parts = repetition.split('^');
      return [repetition, ...Array.from({ length: COMPONENTS }, (_, c) => parts[c] || null)];
    })));
  while (segments[name].length <= FIELDS) segments[name].push([]);
}
const data = {
  segments,
  genders: { F: 'female', M: 'male', O: 'other', A: 'other' },
  maritalStates: { M: 'M', S: 'S', D: 'D', W: 'W' },
};

// What such converters do behind the template: commas too many and values without content are removed.
function tidy(text) {
  let strings = [];
  const bare = text.replace(/"(?:[^"\\]|\\.)*"/g, (s) => `\u0001${strings.push(s) - 1}\u0002`).replace(/,(\s*[}\]])/g, '$1').replace(/,(\s*[}\]])/g, '$1');
  const value = JSON.parse(bare.replace(/\u0001(\d+)\u0002/g, (_, n) => strings[n]));
  const prune = (v) => {
    if (Array.isArray(v)) return v.map(prune).filter((x) => x !== undefined);
    if (v && typeof v === 'object') {
      return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, prune(x)]).filter(([, x]) => x !== undefined));
    }
    return v === '' ? undefined : v;
  };
  return prune(value);
}

function attempt(text, options) {
  const engine = new Liquid(options);
  let template;
  try {
    template = engine.parse(text);
  } catch (e) {
    return { when: 'before', says: e.message };
  }
  try {
    return { when: 'never', made: tidy(engine.renderSync(template, data)) };
  } catch (e) {
    return { when: 'run time', says: e.message.split('\n')[0] };
  }
}

const template = read('template.liquid');
for (const [kind, options] of [['liquid', {}], ['liquid-strict', { strictVariables: true, strictFilters: true }]]) {
  const good = attempt(template, options);
  console.log(JSON.stringify({ language: kind, mistake: null, ...good }));
  if (!good.made) continue;
  for (const { mistake, liquid: [from, to] } of JSON.parse(read('mistakes.json'))) {
    if (!template.includes(from)) throw new Error(`${mistake}: ${from} is not in the template`);
    const tried = attempt(template.replace(from, to), options);
    const changed = tried.made && Object.fromEntries(Object.entries(tried.made).filter(([k, v]) => !isDeepStrictEqual(v, good.made[k])));
    const lost = tried.made && Object.keys(good.made).filter((k) => !(k in tried.made));
    console.log(JSON.stringify({ language: kind, mistake, when: tried.when, says: tried.says, changed, lost }));
  }
}
