//! The packed dictionaries say what the files in definitions/hl7v2 say, entry by entry.

use kiln::hl7v2::{
    FieldDef, NodeId, Structure, Usage, Version, datatype, datatype_ids, event_structure, events, newest_datatype, newest_field, newest_segment, newest_table,
    segment, segment_ids, structure, structures, table,
};
use serde_json::Value;

fn read(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("definitions/hl7v2").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("the definitions are in the repository")).expect("they are JSON")
}

fn same_field(found: FieldDef, want: &Value, place: &str) {
    assert_eq!(found.name(), want["name"].as_str().unwrap_or(""), "{place}");
    assert_eq!(found.datatype(), want["datatype"].as_str().unwrap_or(""), "{place}");
    assert_eq!(found.table(), want["table"].as_str(), "{place}");
    assert_eq!(u64::from(found.min()), want["min"].as_u64().unwrap_or(0), "{place}");
    let max = want["max"].as_i64().unwrap_or(1);
    assert_eq!(found.max().map_or(-1, i64::from), max, "{place}");
    let length = want["length"].as_u64().or_else(|| want["length"].as_str().and_then(|l| l.parse().ok()));
    assert_eq!(found.length().map(u64::from), length, "{place}");
    let usage = match want["usage"].as_str() {
        Some("C") => Usage::Conditional,
        Some("B") => Usage::Backward,
        Some("W") => Usage::Withdrawn,
        _ if want["min"].as_u64() == Some(1) => Usage::Required,
        _ => Usage::Optional,
    };
    assert_eq!(found.usage(), usage, "{place}");
}

fn same_nodes(found: Structure, group: NodeId, want: &[Value], seen: &mut usize) {
    let children: Vec<NodeId> = found.children(group).collect();
    assert_eq!(children.len(), want.len(), "{} {group:?}", found.id());
    for (id, want) in children.into_iter().zip(want) {
        *seen += 1;
        let node = found.node(id);
        assert_eq!((node.name, u64::from(node.min)), (want[0].as_str().expect("a name"), want[1].as_u64().expect("a minimum")));
        assert_eq!(node.max.map_or(-1, i64::from), want[2].as_i64().expect("a maximum"));
        assert_eq!((node.parent, node.is_choice, node.is_group), (Some(group), want[4] == "choice", want[3].is_array()));
        same_nodes(found, id, want[3].as_array().map_or(&[][..], Vec::as_slice), seen);
    }
}

#[test]
fn nothing_is_lost_in_packing() {
    let all_tables = read("tables.json");
    let (mut fields, mut nodes, mut codes) = (0, 0, 0);
    for version in Version::ALL {
        let release = read(&format!("v{}.json", version.name()));
        for (id, want) in release["segments"].as_object().expect("segments") {
            let found = segment(version, id).unwrap_or_else(|| panic!("{id} in {}", version.name()));
            assert_eq!((found.id(), found.name()), (id.as_str(), want["name"].as_str().unwrap_or("")));
            let want = want["fields"].as_array().expect("fields");
            assert_eq!((found.field_count(), found.field(0), found.field(want.len() + 1)), (want.len(), None, None));
            for (n, want) in want.iter().enumerate() {
                same_field(found.field(n + 1).expect("the field is there"), want, &format!("{id}-{} {}", n + 1, version.name()));
                fields += 1;
            }
        }
        for (id, want) in release["datatypes"].as_object().expect("datatypes") {
            let found = datatype(version, id).unwrap_or_else(|| panic!("{id} in {}", version.name()));
            assert_eq!((found.id(), found.name()), (id.as_str(), want["name"].as_str().unwrap_or("")));
            let want = want["components"].as_array().map_or(&[][..], Vec::as_slice);
            assert_eq!((found.component_count(), found.is_primitive()), (want.len(), want.is_empty()));
            for (n, want) in want.iter().enumerate() {
                same_field(found.component(n + 1).expect("the component is there"), want, &format!("{id}.{} {}", n + 1, version.name()));
            }
        }
        for (id, variant) in release["tables"].as_object().expect("tables") {
            let want = &all_tables[id][usize::try_from(variant.as_u64().expect("an index")).expect("a small index")];
            let found = table(version, id).unwrap_or_else(|| panic!("{id} in {}", version.name()));
            assert_eq!((found.id(), found.name(), found.is_hl7()), (id.as_str(), want["name"].as_str().unwrap_or(""), want["hl7"] == true));
            let want = want["codes"].as_object().expect("codes");
            assert_eq!(found.codes().count(), want.len());
            for (code, display) in want {
                assert_eq!(found.display(code), Some(display.as_str().unwrap_or("")), "{id} {code}");
                codes += 1;
            }
            assert!(!found.contains("no such code"));
        }
        let want = release["events"].as_object().expect("events");
        assert_eq!(events(version).count(), want.len());
        for (event, id) in events(version) {
            assert_eq!(Some(id), want[event].as_str());
            assert_eq!(event_structure(version, event), Some(id));
        }
        let want = release["messages"].as_object().expect("messages");
        assert_eq!(structures(version).count(), want.len());
        for found in structures(version) {
            assert_eq!(structure(version, found.id()), Some(found));
            same_nodes(found, Structure::ROOT, want[found.id()].as_array().expect("nodes"), &mut nodes);
        }
    }
    assert_eq!((fields, nodes > 40_000, codes > 50_000), (28_803, true, true));
}

#[test]
fn look_ups_over_all_releases() {
    assert_eq!(event_structure(Version::V291, "ORM^O01"), Some("ORM_O01"), "withdrawn after 2.6");
    assert_eq!(event_structure(Version::V21, "VXU^V04"), Some("VXU_V04"), "came later");
    assert_eq!(event_structure(Version::V25, "ADT^Z99"), None);
    assert_eq!(newest_segment("QRD").map(|s| s.id()), Some("QRD"));
    assert_eq!(newest_datatype("TS").map(|d| d.id()), Some("TS"));
    assert_eq!(newest_table("0001").map(|t| t.contains("X")), Some(true));
    assert_eq!(newest_field("PID", 3).map(|(v, f)| (v, f.datatype())), Some((Version::V291, "CX")));
    let (version, field) = newest_field("PID", 2).expect("PID-2 had a data type once");
    assert!(version < Version::V291 && !field.datatype().is_empty());
    assert_eq!(newest_field("PID", 400), None);
    assert!(segment_ids().any(|id| id == "PID") && segment_ids().is_sorted() && datatype_ids().any(|id| id == "CX"));
    assert_eq!(segment(Version::V25, "pid"), None, "the dictionary's own ids are in capitals");
    let adt = structure(Version::V25, "ADT_A01").expect("it is in 2.5");
    assert_eq!(adt.node(NodeId(u16::MAX)), adt.node(NodeId(u16::try_from(adt.node_count() - 1).expect("small"))));
}
