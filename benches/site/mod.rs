//! Route sets for the benchmarks: the shipped one, alone and beside a large site's own routes and maps.

use kiln::diagnostic::Sources;
use std::fmt::Write as _;

/// The shipped routes, and as many of a site's own routes and maps: routes for events that the benchmarks' messages don't have, and variants of
/// maps for one sender each.
pub(crate) fn sources(routes: usize, maps: usize) -> Sources {
    let mut sources = Sources::default();
    add(&mut sources, std::path::Path::new("routes"));
    for chunk in 0..maps.div_ceil(100) {
        let mut text = String::new();
        for n in chunk * 100..maps.min(chunk * 100 + 100) {
            let divide = if text.is_empty() { "" } else { "---\n" };
            let _ = match n % 4 {
                0 => write!(text, "{divide}map: XPN -> HumanName-Sender{n}\nfamily: upper(XPN.1.1)\ngiven: [XPN.2, XPN.3]\nuse: XPN.7\n"),
                1 => write!(text, "{divide}map: XTN -> ContactPoint-Sender{n}\nsystem: \"phone\"\nvalue: XTN.12 ?? XTN.1\n"),
                2 => write!(text, "{divide}map: XAD -> Address-Sender{n}\nline: [XAD.1.1, XAD.2]\ncity: XAD.3\npostalCode: XAD.5\ncountry: XAD.6\n"),
                _ => write!(
                    text,
                    "{divide}map: PID -> Patient-Sender{n}\nidentifier: PID-3\nname: PID-5 as HumanName-Sender{}\ntelecom: PID-13 as ContactPoint-Sender{}\n\
                     address: PID-11 as Address-Sender{}\nbirthDate: PID-7\n",
                    n - 3,
                    n - 2,
                    n - 1
                ),
            };
        }
        sources.add(format!("site/maps-{chunk}.yaml"), text);
    }
    for n in 0..routes {
        let map = if maps >= 4 { format!("PID -> Patient-Sender{}", n * 4 % (maps / 4 * 4) + 3) } else { "PID -> Patient".to_owned() };
        let text = format!(
            "route: site-{n}\non: [ADT^A{:02}, ADT^A29]\nto: main\nwhen: MSH-3 = \"SENDER{n}\"\nresources:\n  patient:\n    $map: {map}\n    $save: merge by PID-3\n    \
             active: true\n    maritalStatus: PID-16\n",
            [30, 35, 36, 39, 41, 42, 43, 44, 46][n % 9]
        );
        sources.add(format!("site/route-{n}.yaml"), text);
    }
    sources
}

fn add(sources: &mut Sources, folder: &std::path::Path) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).expect("routes are here").filter_map(Result::ok).map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            add(sources, &path);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            sources.add_shipped(path.to_string_lossy(), std::fs::read_to_string(&path).expect("a route file is text"));
        }
    }
}
