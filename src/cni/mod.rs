//! The CNI protocol (spec 1.1.0 and every version before): what a runtime hands to a plugin and what it
//! gets back. Nothing in here knows of netlink.
//!
//! [`frame`] runs a plugin: [`mod@env`] and standard input in ([`conf`], [`json`], [`args`]), [`result`] or
//! [`error`] out ([`mod@print`]). [`delegate`] finds and runs other plugins, [`attachment`] says what one
//! attachment is called everywhere, [`version`] which versions there are.

pub mod args;
pub mod attachment;
pub mod conf;
pub mod delegate;
pub mod env;
pub mod error;
pub mod frame;
pub mod json;
pub mod print;
pub mod queue;
pub mod result;
pub mod version;

pub use attachment::Attachment;
pub use conf::NetConf;
pub use error::{Code, Error};
pub use frame::{Plugin, Request};
pub use result::CniResult;
pub use version::Version;
