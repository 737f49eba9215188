//! In what manner routes are compiled: the overlays that count for them, and the fields to which they give another type.

use crate::route::program::LoadOptions;
use crate::route::tree::{Document, Head};

/// Under what a route is compiled: the overlays that count for it, and the fields to which it gives another type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manner {
    pub(crate) overlays: Vec<String>,
    pub(crate) types: Vec<(String, String)>,
}

impl Manner {
    pub(crate) fn of_site(options: &LoadOptions) -> Self {
        Self { overlays: options.overlays.clone(), types: Vec::new() }
    }
}

/// The routes that are compiled in another manner than the site's, sorted by that manner.
pub(crate) fn manners(documents: &[Document], options: &LoadOptions) -> Vec<(String, Manner)> {
    let site = Manner::of_site(options);
    let mut all = Vec::new();
    for document in documents {
        let Head::Route(route) = &document.head else { continue };
        let mut manner = site.clone();
        manner.overlays.extend(route.overlays.iter().map(|o| o.text.clone()).filter(|o| !options.overlays.contains(o)));
        manner.types = route.types.iter().map(|(path, ty)| (path.text.clone(), ty.text.clone())).collect();
        manner.types.sort();
        if manner != site {
            all.push((route.name.text.clone(), manner));
        }
    }
    all.sort_by(|a, b| a.1.cmp(&b.1));
    all
}
