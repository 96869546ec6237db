use std::cell::Cell;
use std::rc::Rc;

use nix::errno::Errno;

use super::rule::AddTable;
use super::*;
use crate::nl::testing::{
    Answer, Bytes, Refusal, ack, answered, hex, message, scripted, sequences,
};
use crate::nl::wire::Flags;

const TABLE: Table<'_> = Table { family: Family::Inet, name: "plumb" };
const OTHER: Table<'_> = Table { family: Family::Bridge, name: "plumb" };

/// The first request's refusal.
fn first_refused(purpose: &str, errno: Errno) -> Error {
    Error { request: Some(0), ..Error::new(purpose, errno) }
}

/// `nft add table inet plumb` and `nft add table bridge plumb`, in one transaction.
///
/// nft(8) sets no `NLM_F_CREATE`, and asks for no acknowledgement. The kernel makes a table that is
/// missing either way.
#[test]
fn a_transaction_is_framed_and_only_its_last_request_acknowledged() {
    let (mut kernel, record) = scripted(|_| Ok(vec![Answer::Datagram(ack(3))]));
    assert_eq!(commit(&mut kernel, &[&AddTable(TABLE), &AddTable(OTHER)]), Ok(()));
    let expected = vec![hex("
        14000000 1000 0100 01000000 00000000   # NFNL_MSG_BATCH_BEGIN, REQUEST
        0000000a                               # struct nfgenmsg
        28000000 000a 0104 02000000 00000000   # NFT_MSG_NEWTABLE, REQUEST | CREATE
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_TABLE_NAME plumb
        0800 0200 00000000                     # NFTA_TABLE_FLAGS
        28000000 000a 0504 03000000 00000000   # NFT_MSG_NEWTABLE, REQUEST | ACK | CREATE
        07000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_TABLE_NAME plumb
        0800 0200 00000000                     # NFTA_TABLE_FLAGS
        14000000 1100 0100 04000000 00000000   # NFNL_MSG_BATCH_END, REQUEST
        0000000a                               # struct nfgenmsg
        ")];
    assert_eq!(*record.borrow(), expected);
}

#[test]
fn an_empty_transaction_is_not_sent() {
    let (mut kernel, record) = scripted(|_| panic!("nothing should be sent"));
    assert_eq!(commit(&mut kernel, &[]), Ok(()));
    assert_eq!(*record.borrow(), vec![]);
}

fn refused(sequence: u32, errno: i32) -> Answer {
    Answer::Datagram(Refusal { sequence, errno, ..Refusal::default() }.bytes())
}

/// `nft add table inet plumb` without `CAP_NET_ADMIN`. The kernel looks no further than the opening
/// message, so there will be no other answer.
#[test]
fn a_transaction_refused_as_a_whole_is_an_error_of_its_own() {
    let answer = hex("
        24000000 0200 0001 01000000 00000000   # NLMSG_ERROR, CAPPED
        ffffffff                               # error -1
        14000000 10000100 01000000 00000000    # the request's header
        ");
    let error = answered(&[answer], |kernel| commit(kernel, &[&AddTable(TABLE), &AddTable(OTHER)]))
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot change the nf_tables ruleset: EPERM");
    assert_eq!(error.request, Some(0));
}

/// A request that can live with an error has no say in that of the transaction around it.
#[test]
fn a_transaction_refused_as_a_whole_is_not_tolerated() {
    struct Tolerant;
    impl fmt::Display for Tolerant {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("be tolerant")
        }
    }
    impl Request for Tolerant {
        fn kind(&self) -> u16 {
            kind(libc::NFT_MSG_DELSETELEM)
        }
        fn body(&self, out: &mut Encoder) {
            TABLE.header(out);
        }
        fn tolerates(&self, errno: Errno) -> bool {
            errno == Errno::ENOENT
        }
    }
    let (mut kernel, _) = scripted(|_| Ok(vec![refused(1, libc::ENOENT)]));
    let error = commit(&mut kernel, &[&Tolerant]).unwrap_err();
    assert_eq!(error, first_refused("change the nf_tables ruleset", Errno::ENOENT));

    let (mut kernel, _) = scripted(|_| Ok(vec![refused(2, libc::ENOENT)]));
    assert_eq!(commit(&mut kernel, &[&Tolerant]), Ok(()));
}

/// The kernel goes on after an error, to report all there are, and acknowledges the last request although
/// nothing has changed.
#[test]
fn the_first_of_several_refusals_is_the_error() {
    let answers =
        || vec![refused(2, libc::EEXIST), refused(3, libc::ENOENT), Answer::Datagram(ack(4))];
    let (mut kernel, _) = scripted(move |_| Ok(answers()));
    let requests: [&dyn Request; 3] = [&AddTable(TABLE), &AddTable(OTHER), &AddTable(TABLE)];
    let error = commit(&mut kernel, &requests).unwrap_err();
    let expected = Error {
        request: Some(0),
        ..Error::new("create nf_tables table inet plumb", Errno::EEXIST)
    };
    assert_eq!(error, expected);
}

/// A commit that fails as a whole is reported ahead of the acknowledgements, which then belong to no one.
#[test]
fn answers_left_over_from_a_refused_transaction_do_no_harm() {
    let attempt = Rc::new(Cell::new(0));
    let (mut kernel, record) = scripted(move |datagram| {
        attempt.set(attempt.get() + 1);
        let sequences = sequences(datagram);
        let (open, request) = (sequences[0], sequences[1]);
        Ok(match attempt.get() {
            1 => vec![refused(open, libc::EBUSY), Answer::Datagram(ack(request))],
            _ => vec![refused(request, libc::EEXIST)],
        })
    });
    let errnos = [Errno::EBUSY, Errno::EEXIST];
    for errno in errnos {
        let error = commit(&mut kernel, &[&AddTable(TABLE)]).unwrap_err();
        assert_eq!(error.errno, errno);
    }
    let sent: Vec<_> = record.borrow().iter().map(|datagram| sequences(&datagram.0)).collect();
    assert_eq!(sent, [[1, 2, 3], [4, 5, 6]]);
}

#[test]
fn an_unanswered_transaction_is_an_error() {
    let (mut kernel, _) = scripted(|_| Ok(vec![]));
    let error = commit(&mut kernel, &[&AddTable(TABLE)]).unwrap_err();
    let expected = Error::protocol("create nf_tables table inet plumb", "answer is missing");
    assert_eq!(error, expected);
}

#[test]
fn a_refusal_outweighs_a_missing_acknowledgement() {
    let (mut kernel, _) = scripted(|_| Ok(vec![refused(2, libc::ENOENT)]));
    let error = commit(&mut kernel, &[&AddTable(TABLE), &AddTable(OTHER)]).unwrap_err();
    assert_eq!(error, first_refused("create nf_tables table inet plumb", Errno::ENOENT));
}

/// libc has no `struct nfgenmsg`. linux/netfilter/nfnetlink.h: two bytes, and `__be16 res_id`.
#[test]
fn the_header_is_laid_out_as_the_kernels() {
    let bytes = message(0, Flags::empty(), 0, |out| header(out, 7, 0x0a0b));
    assert_eq!(Bytes(bytes[16..].to_vec()), hex("07 00 0a0b"));
    assert_eq!(HEADER, 4);
}

#[test]
fn families_and_message_types_are_the_kernels() {
    assert_eq!(Family::Inet as i32, libc::NFPROTO_INET);
    assert_eq!(Family::Bridge as i32, libc::NFPROTO_BRIDGE);
    assert_eq!(kind(libc::NFT_MSG_NEWTABLE), 0x0a00);
    assert_eq!(kind(libc::NFT_MSG_DELSETELEM), 0x0a0e);
}
