//! Maps by what they make, so that a line's way to its element is found without a look at all maps.

use crate::route::compile::{Compiler, MapHead};
use crate::route::tree::Target;
use std::collections::HashMap;

/// Indices into the compiler's maps, each list in their order.
#[derive(Default)]
pub(crate) struct MapIndex {
    /// By whole type (`Identifier`), then by variant.
    types: HashMap<String, HashMap<Option<String>, Vec<usize>>>,
    /// By element (`Patient.contact`), without variants.
    elements: HashMap<String, Vec<usize>>,
    /// Those that make resources, without variants.
    resources: Vec<usize>,
}

impl MapIndex {
    /// Takes up the next map.
    pub(crate) fn add(&mut self, n: usize, map: &MapHead<'_>) {
        let target = map.target;
        self.types.entry(target.name.clone()).or_default().entry(target.variant.clone()).or_default().push(n);
        if target.variant.is_none() {
            if map.resource.is_some() {
                self.resources.push(n);
            }
            if !target.element.is_empty() {
                self.elements.entry(format!("{}.{}", target.name, target.element.join("."))).or_default().push(n);
            }
        }
    }
}

impl<'a> Compiler<'a> {
    /// Maps to this type or to elements of it, of this variant.
    pub(crate) fn maps_to<'s>(&'s self, name: &str, variant: Option<&String>) -> impl Iterator<Item = (usize, &'s MapHead<'a>)> + Clone {
        self.indexed(self.map_index.types.get(name).and_then(|variants| variants.get(&variant.cloned())))
    }

    /// Maps to a target that somebody wrote.
    pub(crate) fn maps_to_target<'s>(&'s self, target: &Target) -> impl Iterator<Item = (usize, &'s MapHead<'a>)> + Clone {
        self.maps_to(&target.name, target.variant.as_ref())
    }

    /// Maps to the element of that path, without variants.
    pub(crate) fn maps_to_element<'s>(&'s self, path: &str) -> impl Iterator<Item = (usize, &'s MapHead<'a>)> + Clone {
        self.indexed(self.map_index.elements.get(path))
    }

    /// Maps that make resources, without variants.
    pub(crate) fn maps_to_resources(&self) -> impl Iterator<Item = (usize, &MapHead<'a>)> + Clone {
        self.indexed(Some(&self.map_index.resources))
    }

    fn indexed<'s>(&'s self, found: Option<&'s Vec<usize>>) -> impl Iterator<Item = (usize, &'s MapHead<'a>)> + Clone {
        found.into_iter().flatten().map(|n| (*n, &self.maps[*n]))
    }
}
