//! Packs the HL7 v2 dictionaries and the FHIR definitions (slim JSON in `definitions/`) into tables that are read in place.

#[path = "build/fhir.rs"]
mod fhir;
#[path = "build/v2.rs"]
mod v2;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=definitions");
    // Embedded as they are; the compiler does not see new files in a folder by itself.
    println!("cargo:rerun-if-changed=routes");
    println!("cargo:rerun-if-changed=fixtures/try");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    v2::pack(&out);
    fhir::pack(&out);
}
