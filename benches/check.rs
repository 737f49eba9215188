//! Reading, checking and compiling route sets: the shipped one, alone and beside a large site's own routes and maps.

mod site;

use kiln::route::{LoadOptions, load};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// (routes, maps) of the site.
#[divan::bench(args = [(0, 0), (650, 0), (650, 500), (650, 1000), (650, 2000), (0, 2000), (0, 4000)], sample_count = 5, sample_size = 1)]
fn check(bencher: divan::Bencher, (routes, maps): (usize, usize)) {
    bencher.with_inputs(|| site::sources(routes, maps)).bench_values(|sources| {
        let loaded = load(sources, &LoadOptions::default());
        assert!(loaded.set.is_some(), "the routes have no errors");
        loaded
    });
}
