//! Every command explains itself: `--help` with an example, and exit code 2 for what it does not understand.

mod cli_support;
use cli_support::run;
use std::path::Path;

const COMMANDS: &[&str] = &[
    "try",
    "serve",
    "reload",
    "check",
    "map",
    "explain",
    "schema",
    "test",
    "lsp",
    "coverage",
    "fhir",
    "fhir get",
    "fhir search",
    "jwks",
    "send",
    "import",
    "unmapped",
    "unmapped add",
    "journal",
    "journal search",
    "journal dead-letters",
    "journal show",
    "journal stats",
    "journal verify",
    "journal prune",
    "journal replay",
    "journal skip",
];

#[test]
fn every_command_has_help_with_an_example() {
    let here = Path::new(".");
    for command in COMMANDS {
        let mut args: Vec<_> = command.split(' ').collect();
        args.push("--help");
        let ran = run(here, &args).expect(0);
        assert!(ran.out.contains("Example"), "{command}:\n{}", ran.out);
        assert!(ran.out.contains("kiln "), "{command}:\n{}", ran.out);
        assert_eq!(ran.err, "", "{command}");
        let unknown = run(here, &[&args[..args.len() - 1], &["--no-such-option"]].concat()).expect(2);
        assert!(unknown.err.contains("--no-such-option"), "{command}: {}", unknown.err);
    }
}

#[test]
fn the_list_of_commands_is_the_list_of_this_test() {
    let out = run(Path::new("."), &["--help"]).expect(0).out;
    let listed: Vec<_> = out
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| l.starts_with("  "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|c| *c != "help")
        .collect();
    let tested: Vec<_> = COMMANDS.iter().filter(|c| !c.contains(' ')).copied().collect();
    assert_eq!(listed.len(), tested.len(), "{listed:?}");
    assert!(tested.iter().all(|c| listed.contains(c)), "{listed:?}");
    assert_eq!(run(Path::new("."), &["--version"]).expect(0).out.trim(), concat!("kiln ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_command_without_what_it_needs_says_so_and_exits_2() {
    let folder = tempfile::tempdir().expect("a folder");
    for (args, told) in [
        (&["serve"][..], "there is no file kiln.yaml"),
        (&["serve", "--config", "x.yaml"], "there is no file x.yaml"),
        (&["journal", "stats"], "there is no kiln.yaml here"),
        (&["journal", "stats", "--journal", "none"], "there is no journal in none"),
        (&["check", "nowhere"], "there is no file or folder nowhere"),
        (&["map", "none.hl7"], "none.hl7"),
        (&["send", "none.hl7", "--to", "127.0.0.1:1"], "none.hl7"),
        (&["explain", "K000"], "there is no code K000"),
    ] {
        let ran = run(folder.path(), args).expect(2);
        assert!(ran.err.contains(told), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
    }
}
