//! Links of the host are deleted such that calls which do so at the same time share the kernel's wait.
//!
//! To delete a link takes the kernel 15–20 ms, nearly all of it waits for RCU, of which each holds up all other
//! changes of links for a while (RTNL); to delete 64 in one request takes 45 ms. So who finds another call deleting
//! puts its link into a group, waits for those that are doing the same, and has the kernel delete the group. The
//! kernel carries out one such request after another: the first deletes the links of all, the others
//! find theirs gone, and none of them waits for what the kernel does once nothing of the links is to be
//! seen any more.
//!
//! Nobody holds a lock that others need to have their link deleted: they only wait a moment to be more. So who is
//! killed, wherever it be, keeps nobody waiting, and a link that it has put into the group is deleted
//! with the next.

use std::time::Duration;

use nix::errno::Errno;

use crate::cni::Error;
use crate::cni::error::Errors;
use crate::cni::queue::{self, DELETION, MARKING};
use crate::nl::link::{self, DeleteGroup, SetGroup, Target};
use crate::nl::{self, Socket, route};
use crate::sys::lock::{Kind, lock, try_lock};

/// The group of links that are to be deleted (`ip link show group …`), which nobody else is likely to use: the first
/// bytes of "plumb".
const GROUP: u32 = 0x706c_756d;

/// How long a call waits for others that are putting their links into the group.
const GATHERING: Duration = Duration::from_millis(50);

/// How many links are deleted in one request if there are more: for so many the kernel lets no other change
/// of links in for some 50 ms.
const TOGETHER: usize = 128;

/// Deletes a link, together with those that other calls are deleting; false if there was none.
///
/// # Errors
/// The kernel's refusal.
pub fn shared(host: &mut Socket, name: &str) -> Result<bool, Error> {
    // Without the queue, as on a read-only file system, each deletes its own.
    let Ok(alone) = queue::open() else { return by_name(host, name) };
    if try_lock(&alone, Kind::Byte(DELETION)) != Ok(false) {
        return by_name(host, name);
    }
    if !mark(host, name)? {
        return Ok(false);
    }
    if let Ok(others) = queue::open() {
        // Only the wait counts. Whether it has been long enough shows below.
        let _ = lock(&others, Kind::Byte(MARKING), GATHERING);
    }
    if link::index_of(host, name)?.is_some() {
        let deleted = host.execute(&[&DeleteGroup(GROUP)]);
        if deleted.is_err() || link::index_of(host, name)?.is_some() {
            // A link in the group can't be deleted, or somebody has taken this one out of it.
            by_name(host, name)?;
        }
    }
    Ok(true)
}

/// Puts a link into the group; false if there is none.
fn mark(host: &mut Socket, name: &str) -> Result<bool, Error> {
    let marking = queue::open().ok();
    if let Some(marking) = &marking {
        let _ = lock(marking, Kind::SharedByte(MARKING), GATHERING);
    }
    match host.execute(&[&SetGroup { target: Target::Name(name), group: GROUP }]) {
        Ok(()) => Ok(true),
        Err(error) if error.errno == Errno::ENODEV => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a link; false if there was none.
///
/// # Errors
/// The kernel's refusal.
pub fn by_name(host: &mut Socket, name: &str) -> Result<bool, Error> {
    Ok(is_deleted(host.execute(&[&link::Delete(Target::Name(name))]))?)
}

/// Deletes many links, given by their indices, some at a time; that one is gone already is fine. Goes on after a
/// failure, and returns the links that are still there with the kernel's first refusal.
///
/// # Errors
/// The first refusal, with the others behind it.
pub fn many(host: &mut Socket, links: &[u32]) -> (Vec<u32>, Result<(), Error>) {
    let (mut left, mut errors) = (Vec::new(), Errors::default());
    if links.len() > TOGETHER {
        // It is only to be faster.
        let _ = route::flush(host, &links.iter().copied().collect());
    }
    for links in links.chunks(TOGETHER) {
        let marks: Vec<_> = links
            .iter()
            .map(|index| SetGroup { target: Target::Index(*index), group: GROUP })
            .collect();
        let mut requests: Vec<&dyn nl::request::Request> = Vec::new();
        requests.extend(marks.iter().map(|mark| mark as &dyn nl::request::Request));
        requests.push(&DeleteGroup(GROUP));
        if host.execute(&requests).is_ok() {
            continue;
        }
        // One has gone meanwhile, or can't be deleted.
        for index in links {
            let deleted = is_deleted(host.execute(&[&link::Delete(Target::Index(*index))]));
            if errors.note(deleted).is_none() {
                left.push(*index);
            }
        }
    }
    (left, errors.into_result())
}

/// That there was no link is no error.
fn is_deleted(result: Result<(), nl::Error>) -> Result<bool, nl::Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.errno == Errno::ENODEV => Ok(false),
        Err(error) => Err(error),
    }
}
