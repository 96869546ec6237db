//! Address management: the plugins that lease addresses, and how interface plugins call them.

pub mod dhcp;
pub mod host_local;
pub mod static_ipam;

use std::net::IpAddr;
use std::path::PathBuf;

use crate::cni::delegate::{self, Delegate};
use crate::cni::env::Command;
use crate::cni::{Attachment, CniResult, Code, Error, Request};
use crate::net::Cidr;

/// The address management that a configuration names.
#[derive(Debug)]
pub enum Ipam<'a> {
    /// host-local, called within this process.
    HostLocal(&'a Request),
    /// static, called within this process.
    Static(&'a Request),
    /// dhcp, called within this process.
    Dhcp(&'a Request),
    /// Another program.
    Foreign(PathBuf, &'a Request),
}

/// What was leased for an ADD.
#[derive(Debug)]
pub struct Leased {
    /// Addresses, routes and name resolution.
    pub result: CniResult,
    /// How to take it back.
    pub undo: Undo,
}

/// How to take back what an ADD leased.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Undo {
    /// Release these addresses. Those that the attachment held before stay.
    Release(Vec<IpAddr>),
    /// Have all released that the attachment holds.
    Del,
}

impl<'a> Ipam<'a> {
    /// The address management of this request; `None` if it is to be done without.
    ///
    /// # Errors
    /// The plugin can't be found along `CNI_PATH`, or is none for addresses.
    pub fn of(request: &'a Request) -> Result<Option<Self>, Error> {
        let Some(name) = request.conf.ipam_type()? else { return Ok(None) };
        match Delegate::find(&name, &request.env.path)? {
            Delegate::Foreign(program) => Ok(Some(Self::Foreign(program, request))),
            Delegate::SameProgram if name == host_local::PLUGIN.name => {
                Ok(Some(Self::HostLocal(request)))
            }
            Delegate::SameProgram if name == static_ipam::PLUGIN.name => {
                Ok(Some(Self::Static(request)))
            }
            Delegate::SameProgram if name == dhcp::PLUGIN.name => Ok(Some(Self::Dhcp(request))),
            Delegate::SameProgram => Err(Error::invalid(
                "ipam.type",
                format_args!("{name:?}"),
                "a plugin for address management",
            )),
        }
    }

    /// Whether it may ask the container's network for addresses: it is to be called when the container's link
    /// is up, and as long as it still is. Others are called before there is a link, so that none is made if
    /// there is no address.
    #[must_use]
    pub fn needs_link(&self) -> bool {
        matches!(self, Self::Dhcp(_) | Self::Foreign(..))
    }

    /// Leases addresses.
    ///
    /// # Errors
    /// Those of the plugin.
    pub fn add(&self) -> Result<Leased, Error> {
        match self {
            Self::HostLocal(request) => {
                let leased = host_local::add(request)?;
                Ok(Leased { result: leased.result, undo: Undo::Release(leased.fresh) })
            }
            Self::Static(request) => {
                let result = static_ipam::add(request)?;
                Ok(Leased { result, undo: Undo::Release(Vec::new()) })
            }
            Self::Dhcp(request) => Ok(Leased { result: dhcp::add(request)?, undo: Undo::Del }),
            Self::Foreign(program, request) => {
                let printed = delegate::execute(program, Command::Add, request)?;
                let result =
                    delegate::read_result(program, &printed, request).map_err(|error| {
                        // It may well have leased something.
                        match self.del() {
                            Ok(()) => error,
                            Err(undo) => error.and(&undo),
                        }
                    })?;
                Ok(Leased { result, undo: Undo::Del })
            }
        }
    }

    /// Takes back what [`add`](Self::add) has leased.
    ///
    /// # Errors
    /// Those of the plugin.
    pub fn undo(&self, undo: &Undo) -> Result<(), Error> {
        match (self, undo) {
            (Self::HostLocal(request), Undo::Release(fresh)) => host_local::undo(request, fresh),
            _ => self.del(),
        }
    }

    /// Releases all that the attachment holds.
    ///
    /// # Errors
    /// Those of the plugin.
    pub fn del(&self) -> Result<(), Error> {
        match self {
            Self::HostLocal(request) => host_local::del(request),
            Self::Static(_) => Ok(()),
            Self::Dhcp(request) => dhcp::del(request),
            Self::Foreign(program, request) => {
                delegate::execute(program, Command::Del, request).map(drop)
            }
        }
    }

    /// The addresses that the attachment holds; `None` if that can't be told.
    ///
    /// # Errors
    /// The leases can't be read.
    pub fn held(&self) -> Result<Option<Vec<Cidr>>, Error> {
        match self {
            Self::HostLocal(request) => host_local::held(request).map(Some),
            // As far as the configuration still says.
            Self::Static(request) => Ok(static_ipam::addresses(request)
                .ok()
                .map(|ips| ips.into_iter().map(|ip| ip.address).collect())),
            Self::Dhcp(_) | Self::Foreign(..) => Ok(None),
        }
    }

    /// Sees whether the addresses of `prev` are leased.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, prev: &CniResult) -> Result<(), Error> {
        match self {
            Self::HostLocal(request) => host_local::check_leases(request, prev),
            Self::Static(request) => static_ipam::check(request, prev),
            Self::Dhcp(request) => dhcp::check(request, prev),
            Self::Foreign(program, request) => {
                delegate::execute(program, Command::Check, request).map(drop)
            }
        }
    }

    /// Sees whether addresses can be leased.
    ///
    /// # Errors
    /// They can't (code 50).
    pub fn status(&self) -> Result<(), Error> {
        match self {
            Self::HostLocal(request) => host_local::status(request),
            Self::Static(request) => static_ipam::status(request),
            Self::Dhcp(request) => dhcp::status(request),
            Self::Foreign(program, request) => {
                delegate::execute(program, Command::Status, request).map(drop)
            }
        }
    }

    /// Releases what belongs to no valid attachment, and to none that is spared; what others than ours spare is
    /// theirs to know.
    ///
    /// # Errors
    /// Those of the plugin.
    pub fn gc(&self, is_spared: &dyn Fn(&Attachment) -> bool) -> Result<(), Error> {
        match self {
            Self::HostLocal(request) => host_local::gc(request, is_spared),
            Self::Static(_) => Ok(()),
            Self::Dhcp(request) => dhcp::gc(request, is_spared),
            Self::Foreign(program, request) => {
                delegate::execute(program, Command::Gc, request).map(drop)
            }
        }
    }
}

/// STATUS of the address management that a configuration names, if it names one.
///
/// # Errors
/// There is no such plugin; it can't lease addresses (code 50).
pub fn status(request: &Request) -> Result<(), Error> {
    Ipam::of(request)?.map_or(Ok(()), |ipam| ipam.status())
}

/// Refuses a lease without addresses: there would be nothing to configure.
///
/// # Errors
/// There are none.
pub fn require_addresses(result: &CniResult) -> Result<(), Error> {
    if result.ips.is_empty() {
        let msg = "IPAM plugin returned missing IP config: no addresses in its result";
        return Err(Error::new(Code::Internal, msg));
    }
    Ok(())
}
