//! The site: `kiln.yaml` and the folder of route files, typed and checked before anything opens a socket.
//!
//! Never applies half a file: either everything in it is good, or the caller gets every fault at once and nothing else.

mod door;
mod enhanced;
mod environment;
mod files;
mod keys;
mod load;
mod model;
mod profile;
mod reader;
mod receiver;
mod reference;
mod schema;
mod sections;
mod target;
mod tolerate;
mod unit;
mod yaml;

pub use environment::Override;
pub use files::{read_folders, route_sources, shipped, words};
pub use load::{LoadedSite, SiteOptions, load};
pub use model::{
    Acknowledge, BatchAnswer, Console, Enhanced, Journal, ListenerSite, Log, LowWater, Mode, OnRemoval, Reload, ReturnTo, Site, TargetKind, TargetSite,
    Unrouted, WhenFull,
};
pub use reference::reference;
pub use schema::schema;
pub use unit::{duration, size};
