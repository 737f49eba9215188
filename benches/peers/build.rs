//! Packs Kiln's HL7 v2 dictionaries, which its parser is compiled with.

#[path = "../../build/v2.rs"]
mod v2;

fn main() {
    println!("cargo:rerun-if-changed=../../build/v2.rs");
    println!("cargo:rerun-if-changed=../../definitions/hl7v2");
    v2::pack(std::path::Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")));
}
