//! Packs `definitions/hl7v2` into `$OUT_DIR/hl7v2.bin` (32-bit words, little-endian) and `$OUT_DIR/hl7v2.txt` (all strings, end to end).
//!
//! Equal lists (fields, components, nodes, codes) are stored once, so fourteen releases take little more room than three.
//! `src/hl7v2/dictionary.rs` reads the layout in place; the two files change together.
//!
//! Words 0..: string count, where the string offsets begin, where the 14 releases begin, then (at, count) of all segment ids and of all data type ids.
//! A release: five pairs (at, count) for structures, events, segments, data types, tables; each directory is sorted by its first word's string.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

const VERSIONS: [&str; 14] = ["2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9.1"];
const HEADER_WORDS: usize = 7;

/// Writes the packed tables.
pub(crate) fn pack(out: &Path) {
    // benches/peers packs the same table, from two folders further down.
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("definitions/hl7v2"));
    let folder = folders.find(|folder| folder.is_dir()).expect("definitions/hl7v2 is in the repository");
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("definitions/hl7v2/{name}: {e}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("definitions/hl7v2/{name}: {e}"))
    };
    let tables = read("tables.json");
    let releases: Vec<Value> = VERSIONS.iter().map(|v| read(&format!("v{v}.json"))).collect();

    let mut packer = Packer { words: vec![0; HEADER_WORDS], ..Packer::default() };
    packer.string("");
    let (mut segment_ids, mut datatype_ids) = (BTreeSet::new(), BTreeSet::new());
    let mut directory = Vec::new();
    for release in &releases {
        segment_ids.extend(object(release, "segments").keys().cloned());
        datatype_ids.extend(object(release, "datatypes").keys().cloned());
        directory.extend(packer.release(release, &tables));
    }
    let releases_at = packer.list(directory);
    let segments: Vec<u32> = segment_ids.iter().map(|id| packer.string(id)).collect();
    let datatypes: Vec<u32> = datatype_ids.iter().map(|id| packer.string(id)).collect();
    let (segments_count, datatypes_count) = (word(segments.len()), word(datatypes.len()));
    let (segments_at, datatypes_at) = (packer.list(segments), packer.list(datatypes));
    let offsets = packer.offsets.clone();
    let strings = word(offsets.len());
    let offsets_at = packer.list(offsets);
    let end = word(packer.text.len());
    packer.words.push(end);
    packer.words[..HEADER_WORDS].copy_from_slice(&[strings, offsets_at, releases_at, segments_at, segments_count, datatypes_at, datatypes_count]);

    let bytes: Vec<u8> = packer.words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(out.join("hl7v2.bin"), bytes).expect("the build folder takes hl7v2.bin");
    std::fs::write(out.join("hl7v2.txt"), &packer.text).expect("the build folder takes hl7v2.txt");
}

#[derive(Default)]
struct Packer {
    words: Vec<u32>,
    text: String,
    offsets: Vec<u32>,
    strings: HashMap<String, u32>,
    lists: HashMap<Vec<u32>, u32>,
}

impl Packer {
    fn string(&mut self, text: &str) -> u32 {
        if let Some(id) = self.strings.get(text) {
            return *id;
        }
        let id = word(self.offsets.len());
        self.offsets.push(word(self.text.len()));
        self.text.push_str(text);
        self.strings.insert(text.to_owned(), id);
        id
    }

    /// Stores a list once and tells where it is.
    fn list(&mut self, words: Vec<u32>) -> u32 {
        if let Some(at) = self.lists.get(&words) {
            return *at;
        }
        let at = word(self.words.len());
        self.words.extend_from_slice(&words);
        self.lists.insert(words, at);
        at
    }

    fn release(&mut self, release: &Value, tables: &Value) -> Vec<u32> {
        let directory = |packer: &mut Self, entries: Vec<Vec<u32>>| [packer.list(entries.concat()), word(entries.len())];
        let mut all = Vec::new();

        let mut structures = Vec::new();
        for (id, nodes) in sorted(object(release, "messages")) {
            let mut tree = vec![self.string(id), bounds(1, 1, true, false), u32::MAX, 0];
            self.nodes(nodes.as_array().expect("a structure is a list of nodes"), 0, &mut tree);
            let count = word(tree.len() / 4);
            tree[3] = count;
            structures.push(vec![self.string(id), self.list(tree), count]);
        }
        all.extend(directory(self, structures));

        let events = sorted(object(release, "events"))
            .into_iter()
            .map(|(event, structure)| vec![self.string(event), self.string(structure.as_str().expect("an event names its structure"))])
            .collect();
        all.extend(directory(self, events));

        for (section, parts) in [("segments", "fields"), ("datatypes", "components")] {
            let mut entries = Vec::new();
            for (id, def) in sorted(object(release, section)) {
                let empty = Vec::new();
                let fields = def[parts].as_array().unwrap_or(&empty);
                let packed: Vec<u32> = fields.iter().flat_map(|f| self.field(f)).collect();
                let name = self.string(def["name"].as_str().unwrap_or(""));
                entries.push(vec![self.string(id), name, self.list(packed), word(fields.len())]);
            }
            all.extend(directory(self, entries));
        }

        let mut entries = Vec::new();
        for (id, variant) in sorted(object(release, "tables")) {
            let variant = variant.as_u64().and_then(|n| usize::try_from(n).ok()).expect("a table names its variant");
            let table = &tables[id][variant];
            let codes = sorted(object(table, "codes"));
            let packed: Vec<u32> = codes.iter().flat_map(|(code, display)| [self.string(code), self.string(display.as_str().unwrap_or(""))]).collect();
            let hl7 = u32::from(table["hl7"].as_bool().unwrap_or(false));
            entries.push(vec![self.string(id), self.string(table["name"].as_str().unwrap_or("")), hl7, self.list(packed), word(codes.len())]);
        }
        all.extend(directory(self, entries));
        all
    }

    /// Nodes in preorder, four words each: name, bounds, parent, and the index after the subtree.
    fn nodes(&mut self, nodes: &[Value], parent: u32, tree: &mut Vec<u32>) {
        for node in nodes {
            let children = node[3].as_array();
            let name = self.string(node[0].as_str().expect("a node has a name"));
            let min = u32::try_from(node[1].as_u64().expect("a node has a minimum")).expect("a small minimum");
            let choice = node[4].as_str() == Some("choice");
            let at = tree.len();
            tree.extend([name, bounds(min, maximum(&node[2]), children.is_some(), choice), parent, 0]);
            if let Some(children) = children {
                self.nodes(children, word(at / 4), tree);
            }
            tree[at + 3] = word(tree.len() / 4);
        }
    }

    /// Five words: name, data type, minimum and maximum and usage, length, table.
    fn field(&mut self, field: &Value) -> [u32; 5] {
        let max = field.get("max").map_or(1, maximum);
        let min = u32::from(field["min"].as_u64().unwrap_or(0) > 0);
        let usage = match field["usage"].as_str() {
            Some("C") => 1,
            Some("B") => 2,
            Some("W") => 3,
            _ => 0,
        };
        let length = match &field["length"] {
            Value::String(text) => text.parse().unwrap_or(0),
            other => other.as_u64().map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        };
        let mut text = |key: &str| field[key].as_str().map_or(0, |t| self.string(t));
        [text("name"), text("datatype"), min | usage << 8 | max << 16, length, text("table")]
    }
}

/// Minimum (8 bits), group and choice (one bit each), maximum (upper 16 bits, all ones = without limit).
fn bounds(min: u32, max: u32, group: bool, choice: bool) -> u32 {
    min.min(255) | u32::from(group) << 8 | u32::from(choice) << 9 | max << 16
}

fn maximum(value: &Value) -> u32 {
    value.as_i64().and_then(|n| u32::try_from(n).ok()).map_or(0xFFFF, |n| n.min(0xFFFE))
}

fn object<'a>(value: &'a Value, key: &str) -> &'a serde_json::Map<String, Value> {
    value[key].as_object().unwrap_or_else(|| panic!("the dictionary lacks `{key}`"))
}

fn sorted(map: &serde_json::Map<String, Value>) -> BTreeMap<&String, &Value> {
    map.iter().collect()
}

fn word(n: usize) -> u32 {
    u32::try_from(n).expect("the dictionaries are small")
}
