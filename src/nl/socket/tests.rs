use std::cell::Cell;
use std::fmt;

use proptest::prelude::*;

use super::*;
use crate::nl::testing::{
    Answer, Refusal, Scripted, ack, answering, done, hex, message, offset_of, scripted, sequences,
};
use crate::nl::wire::Malformed;

/// Type of the objects here, and of their one attribute.
const OBJECT: u16 = 16;
const NUMBER: u16 = 4;
const TEXT: u16 = 3;

/// A request that is answered by numbers.
#[derive(Clone, Copy)]
struct Ask {
    number: u32,
    tolerated: Option<Errno>,
}

const fn ask(number: u32) -> Ask {
    Ask { number, tolerated: None }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ask {}", self.number)
    }
}

impl Request for Ask {
    fn kind(&self) -> u16 {
        18
    }

    fn body(&self, out: &mut Encoder) {
        out.raw(&[0xa5; 8]);
        out.put(TEXT, "text");
        out.put(NUMBER, &self.number);
    }

    fn tolerates(&self, errno: Errno) -> bool {
        self.tolerated == Some(errno)
    }
}

impl Query for Ask {
    type Reply = u32;

    fn decode(&self, message: &Message<'_>) -> Result<u32, Malformed> {
        if message.kind != OBJECT {
            return Err(Malformed("expected a number"));
        }
        let (_, attributes) = message.split::<4>()?;
        let mut number = Err(Malformed("number is missing"));
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind == NUMBER {
                number = attribute.u32();
            }
        }
        number
    }
}

fn object(sequence: u32, flags: Flags, number: u32) -> Vec<u8> {
    message(OBJECT, flags, sequence, |out| {
        out.raw(&[0; 4]);
        out.put(NUMBER, &number);
    })
}

fn from_kernel(messages: &[Vec<u8>]) -> Answer {
    Answer::Datagram(messages.concat())
}

fn refused(sequence: u32, errno: Errno) -> Vec<u8> {
    Refusal { sequence, errno: errno as i32, ..Refusal::default() }.bytes()
}

/// What comes of `requests` if the kernel answers their datagram so.
fn executed(requests: &[&dyn Request], answers: Vec<Answer>) -> Result<(), Error> {
    answering(vec![answers]).0.execute(requests)
}

fn queried(answers: Vec<Answer>) -> Result<u32, Error> {
    answering(vec![answers]).0.query(&ask(1))
}

fn dumped(answers: Vec<Vec<Answer>>) -> Result<Vec<u32>, Error> {
    answering(answers).0.dump(&ask(1))
}

/// The first request's refusal.
fn first_refused(purpose: &str, errno: Errno) -> Error {
    Error { request: Some(0), ..Error::new(purpose, errno) }
}

fn protocol_error(purpose: &str, what: &str) -> Error {
    Error::protocol(purpose, what)
}

#[test]
fn all_requests_go_in_one_datagram_and_the_last_is_acknowledged() {
    let (mut kernel, record) = answering(vec![vec![from_kernel(&[ack(2)])], vec![]]);
    assert_eq!(kernel.execute(&[&ask(7), &ask(8)]), Ok(()));
    let expected = hex("
        2c000000 1200 0100 01000000 00000000   # type 18, REQUEST
        a5a5a5a5 a5a5a5a5                      # family header
        0900 0300 74657874 00000000            # text
        0800 0400 07000000                     # 7
        2c000000 1200 0500 02000000 00000000   # type 18, REQUEST | ACK
        a5a5a5a5 a5a5a5a5                      # family header
        0900 0300 74657874 00000000            # text
        0800 0400 08000000                     # 8
        ");
    assert_eq!(*record.borrow(), vec![expected]);

    // The count goes on.
    let _ = kernel.execute(&[&ask(9)]);
    assert_eq!(sequences(&record.borrow()[1].0), [3]);
}

#[test]
fn a_question_may_follow_requests_in_the_same_datagram() {
    let (mut kernel, record) = answering(vec![vec![from_kernel(&[object(3, Flags::empty(), 5)])]]);
    assert_eq!(kernel.execute_then_query(&[&ask(7), &ask(8)], &ask(9)), Ok(5));
    assert_eq!(sequences(&record.borrow()[0].0), [1, 2, 3]);

    let dump = from_kernel(&[object(5, Flags::empty(), 6), done(5, 0)]);
    let (mut kernel, record) = answering(vec![vec![], vec![dump]]);
    let _ = kernel.execute_then_query(&[&ask(7), &ask(8)], &ask(9));
    assert_eq!(kernel.execute_then_dump(&[&ask(7)], &ask(8)), Ok(vec![6]));
    assert_eq!(sequences(&record.borrow()[1].0), [4, 5]);
}

/// The kernel goes on to the question after a refusal, and answers it, too.
#[test]
fn a_refused_request_counts_more_than_the_answer_to_the_question_behind_it() {
    let expected = || Err(Error { request: Some(1), ..Error::new("ask 8", Errno::EBUSY) });
    let tolerant = Ask { tolerated: Some(Errno::EEXIST), ..ask(7) };
    let requests: [&dyn Request; 3] = [&tolerant, &ask(8), &ask(9)];
    let refusals = || {
        [refused(1, Errno::EEXIST), refused(2, Errno::EBUSY), refused(3, Errno::EPERM)]
            .map(Answer::Datagram)
    };
    for answer in [object(4, Flags::empty(), 5), refused(4, Errno::ENODEV)] {
        let answers = refusals().into_iter().chain([Answer::Datagram(answer)]).collect();
        let (mut kernel, _) = answering(vec![answers]);
        assert_eq!(kernel.execute_then_query(&requests, &ask(1)), expected());
    }
    let answers = refusals().into_iter().chain([from_kernel(&[done(4, 0)])]).collect();
    let (mut kernel, _) = answering(vec![answers]);
    assert_eq!(kernel.execute_then_dump(&requests, &ask(1)).map(|_| 0), expected());

    let answers = vec![from_kernel(&[refused(1, Errno::EEXIST), object(2, Flags::empty(), 5)])];
    let (mut kernel, _) = answering(vec![answers]);
    assert_eq!(kernel.execute_then_query(&[&tolerant], &ask(1)), Ok(5), "a tolerated one");
}

/// What was cut is asked again, what was done is not done again.
#[test]
fn requests_are_not_repeated_with_the_question_behind_them() {
    let large = || Answer::Datagram(object(2, Flags::empty(), 5).repeat(1000));
    let (mut kernel, record) =
        answering(vec![vec![large()], vec![from_kernel(&[object(3, Flags::empty(), 5)])]]);
    assert_eq!(kernel.execute_then_query(&[&ask(7)], &ask(8)), Ok(5));
    let sent: Vec<_> = record.borrow().iter().map(|bytes| sequences(&bytes.0)).collect();
    assert_eq!(sent, [vec![1, 2], vec![3]]);

    let interrupted = from_kernel(&[object(2, Flags::DUMP_INTR, 5), done(2, 0)]);
    let whole = from_kernel(&[object(3, Flags::empty(), 6), done(3, 0)]);
    let (mut kernel, record) = answering(vec![vec![interrupted], vec![whole]]);
    assert_eq!(kernel.execute_then_dump(&[&ask(7)], &ask(8)), Ok(vec![6]));
    let sent: Vec<_> = record.borrow().iter().map(|bytes| sequences(&bytes.0)).collect();
    assert_eq!(sent, [vec![1, 2], vec![3]]);

    // A refusal outlives the cut.
    let (mut kernel, _) =
        answering(vec![vec![Answer::Datagram(refused(1, Errno::EBUSY)), large()]]);
    let expected = Err(first_refused("ask 7", Errno::EBUSY));
    assert_eq!(kernel.execute_then_query(&[&ask(7)], &ask(8)), expected);
}

#[test]
fn no_request_is_no_datagram() {
    let (mut kernel, record) = scripted(|_| panic!("nothing should be sent"));
    assert_eq!(kernel.execute(&[]), Ok(()));
    assert_eq!(*record.borrow(), vec![]);
}

#[test]
fn sequence_numbers_wrap_around() {
    let (mut kernel, record) = scripted(|datagram| {
        let sequences = sequences(datagram);
        Ok(vec![from_kernel(&[refused(sequences[1], Errno::EBUSY), ack(sequences[2])])])
    });
    kernel.sequence = u32::MAX - 1;
    let error = kernel.execute(&[&ask(7), &ask(8), &ask(9)]).unwrap_err();
    assert_eq!(sequences(&record.borrow()[0].0), [u32::MAX, 0, 1]);
    assert_eq!(error, Error { request: Some(1), ..Error::new("ask 8", Errno::EBUSY) });
}

#[test]
fn an_error_in_the_middle_names_its_request_the_kernels_words_and_the_attribute() {
    let (mut kernel, _) = scripted(|datagram| {
        let refusal = Refusal {
            sequence: 2,
            errno: libc::EBUSY,
            words: Some("Device is already a port"),
            offset: Some(offset_of(datagram, 2, 8, NUMBER)),
        };
        Ok(vec![from_kernel(&[refusal.bytes()]), from_kernel(&[ack(3)])])
    });
    let error = kernel.execute(&[&ask(7), &ask(8), &ask(9)]).unwrap_err();
    let expected = Error {
        purpose: "ask 8".to_owned(),
        errno: Errno::EBUSY,
        kernel: Some("Device is already a port".to_owned()),
        attribute: Some(NUMBER),
        request: Some(1),
    };
    assert_eq!(error, expected);
    assert_eq!(error.to_string(), "cannot ask 8: EBUSY (kernel: Device is already a port)");
    assert_eq!(
        error.reason(),
        "EBUSY (Device or resource busy), kernel: Device is already a port, at attribute of type 4"
    );
}

#[test]
fn of_several_errors_the_first_counts_in_one_datagram_or_several() {
    let messages = [refused(1, Errno::ENODEV), refused(3, Errno::EINVAL), ack(4)];
    let spread = messages.iter().map(|message| Answer::Datagram(message.clone())).collect();
    for answers in [vec![from_kernel(&messages)], spread] {
        let error = executed(&[&ask(7), &ask(8), &ask(9), &ask(10)], answers).unwrap_err();
        assert_eq!(error, Error { request: Some(0), ..Error::new("ask 7", Errno::ENODEV) });
    }
}

#[test]
fn an_error_of_the_last_request_takes_the_place_of_its_acknowledgement() {
    let error = executed(&[&ask(7), &ask(8)], vec![from_kernel(&[refused(2, Errno::EPERM)])]);
    assert_eq!(error, Err(Error { request: Some(1), ..Error::new("ask 8", Errno::EPERM) }));
}

#[test]
fn a_tolerated_error_is_none() {
    let tolerant = Ask { number: 8, tolerated: Some(Errno::EEXIST) };
    let answers = |errno| vec![from_kernel(&[refused(1, errno), ack(2)])];
    assert_eq!(executed(&[&tolerant, &ask(9)], answers(Errno::EEXIST)), Ok(()));
    // Another error of the same request, or the same of another, is one.
    let error = executed(&[&tolerant, &ask(9)], answers(Errno::ENODEV)).unwrap_err();
    assert_eq!(error, first_refused("ask 8", Errno::ENODEV));
    let error = executed(&[&ask(9), &tolerant], answers(Errno::EEXIST)).unwrap_err();
    assert_eq!(error, first_refused("ask 9", Errno::EEXIST));
    // Of the last request, too, which is then not acknowledged; what went wrong earlier still counts.
    let last = || from_kernel(&[refused(2, Errno::EEXIST)]);
    assert_eq!(executed(&[&ask(9), &tolerant], vec![last()]), Ok(()));
    let earlier = from_kernel(&[refused(1, Errno::EBUSY)]);
    let error = executed(&[&ask(9), &tolerant], vec![earlier, last()]).unwrap_err();
    assert_eq!(error, first_refused("ask 9", Errno::EBUSY));
}

/// An error number that nobody has named yet, and the one that can't be negated.
#[test]
fn any_error_number_is_an_error() {
    for code in [-4095_i32, i32::MIN] {
        let bytes = message(NLMSG_ERROR, Flags::CAPPED, 1, |out| {
            out.raw(&code.to_ne_bytes());
            out.raw(&[0; 16]);
        });
        let error = executed(&[&ask(7)], vec![Answer::Datagram(bytes)]).unwrap_err();
        assert_eq!(error, first_refused("ask 7", Errno::UnknownErrno));
    }
}

/// `ip link set dev cni0 mtu 1400` with an MTU of two bytes, behind a queue length: what a socket with
/// `NETLINK_EXT_ACK` is answered, with `NETLINK_CAP_ACK` and without.
#[test]
fn the_kernels_words_are_read_capped_or_not() {
    struct BadMtu;
    impl fmt::Display for BadMtu {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("set a bad MTU")
        }
    }
    impl Request for BadMtu {
        fn kind(&self) -> u16 {
            libc::RTM_NEWLINK
        }
        fn body(&self, out: &mut Encoder) {
            out.raw(&[0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            out.put(libc::IFLA_TXQLEN, &1000_u32);
            out.put(libc::IFLA_MTU, &1400_u16);
        }
    }
    let capped = hex("
        78000000 0200 0003 01000000 00000000   # NLMSG_ERROR, CAPPED | ACK_TLVS
        deffffff                               # error -34
        30000000 10000500 01000000 00000000    # the request's header
        2700 0100 41747472 69627574 65206661 696c6564 # NLMSGERR_ATTR_MSG Attribute failed policy validation
                  20706f6c 69637920 76616c69 64617469
                  6f6e0000
        0800 0200 28000000                     # NLMSGERR_ATTR_OFFS 40
        2400 0480 0c000400 00000000 00000000 0c000500 # NLMSGERR_ATTR_POLICY
                  ffffffff 00000000 08000100 04000000
        ");
    let uncapped = hex("
        98000000 0200 0002 01000000 00000000   # NLMSG_ERROR, ACK_TLVS
        deffffff                               # error -34
        30000000 10000500 01000000 00000000    # the request's header
        00000000 02000000 00000000 00000000 08000d00 e8030000 06000400 78050000 # the request
        2700 0100 41747472 69627574 65206661 696c6564 # NLMSGERR_ATTR_MSG Attribute failed policy validation
                  20706f6c 69637920 76616c69 64617469
                  6f6e0000
        0800 0200 28000000                     # NLMSGERR_ATTR_OFFS 40
        2400 0480 0c000400 00000000 00000000 0c000500 # NLMSGERR_ATTR_POLICY
                  ffffffff 00000000 08000100 04000000
        ");
    let expected = Error {
        purpose: "set a bad MTU".to_owned(),
        errno: Errno::ERANGE,
        kernel: Some("Attribute failed policy validation".to_owned()),
        attribute: Some(libc::IFLA_MTU),
        request: Some(0),
    };
    for answer in [capped, uncapped] {
        let error = executed(&[&BadMtu], vec![Answer::Datagram(answer.0)]).unwrap_err();
        assert_eq!(error, expected);
    }
}

#[test]
fn an_offset_that_points_nowhere_names_no_attribute() {
    for offset in [0, 15, 43, 44, u32::MAX] {
        let refusal =
            Refusal { sequence: 1, errno: libc::EINVAL, words: None, offset: Some(offset) };
        let error = executed(&[&ask(7)], vec![from_kernel(&[refusal.bytes()])]).unwrap_err();
        assert_eq!(error, first_refused("ask 7", Errno::EINVAL), "offset {offset}");
    }
}

/// Words that don't keep to the format are no reason to lose the error.
#[test]
fn malformed_words_leave_the_error() {
    let bad_attribute = message(NLMSG_ERROR, Flags::CAPPED | Flags::ACK_TLVS, 1, |out| {
        out.raw(&(-libc::EINVAL).to_ne_bytes());
        out.raw(&[0; 16]);
        out.raw(&[200, 0, 1, 0]);
    });
    let bad_echo = message(NLMSG_ERROR, Flags::ACK_TLVS, 1, |out| {
        out.raw(&(-libc::EINVAL).to_ne_bytes());
        out.raw(&[0xff; 16]);
    });
    let no_echo = message(NLMSG_ERROR, Flags::ACK_TLVS, 1, |out| {
        out.raw(&(-libc::EINVAL).to_ne_bytes());
    });
    for bytes in [bad_attribute, bad_echo, no_echo] {
        let error = executed(&[&ask(7)], vec![Answer::Datagram(bytes)]).unwrap_err();
        assert_eq!(error, first_refused("ask 7", Errno::EINVAL));
    }
}

#[test]
fn sending_is_tried_again_if_interrupted() {
    let interruptions = Cell::new(3);
    let (mut kernel, record) = scripted(move |_| match interruptions.get() {
        0 => Ok(vec![from_kernel(&[ack(1)])]),
        left => {
            interruptions.set(left - 1);
            Err(Errno::EINTR)
        }
    });
    assert_eq!(kernel.execute(&[&ask(7)]), Ok(()));
    let sent: Vec<_> = record.borrow().iter().map(|bytes| sequences(&bytes.0)).collect();
    assert_eq!(sent, [[1], [1], [1], [1]]);
}

#[test]
fn a_failure_to_send_is_an_error() {
    for errno in [Errno::ENOBUFS, Errno::EAGAIN, Errno::EMSGSIZE] {
        let failing = || scripted(move |_| Err(errno)).0;
        assert_eq!(failing().execute(&[&ask(7), &ask(8)]), Err(Error::new("ask 8", errno)));
        assert_eq!(failing().query(&ask(7)), Err(Error::new("ask 7", errno)));
        assert_eq!(failing().dump(&ask(7)), Err(Error::new("ask 7", errno)));
    }
}

#[test]
fn a_request_too_long_for_its_lengths_is_not_sent() {
    struct Long;
    impl fmt::Display for Long {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("say a lot")
        }
    }
    impl Request for Long {
        fn kind(&self) -> u16 {
            18
        }
        fn body(&self, out: &mut Encoder) {
            out.put(1, &[0_u8; 0x1_0000][..]);
        }
    }
    let (mut kernel, record) = scripted(|_| panic!("nothing should be sent"));
    assert_eq!(kernel.execute(&[&Long]), Err(Error::new("say a lot", Errno::EMSGSIZE)));
    assert_eq!(*record.borrow(), vec![]);
}

#[test]
fn receiving_is_tried_again_if_interrupted() {
    let interrupted =
        |answer| vec![Answer::Fails(Errno::EINTR), Answer::Fails(Errno::EINTR), answer];
    assert_eq!(executed(&[&ask(7)], interrupted(from_kernel(&[ack(1)]))), Ok(()));
    assert_eq!(queried(interrupted(from_kernel(&[object(1, Flags::empty(), 5)]))), Ok(5));
    let dump = from_kernel(&[object(1, Flags::empty(), 5), done(1, 0)]);
    assert_eq!(dumped(vec![interrupted(dump)]), Ok(vec![5]));
}

/// What was lost can be the very answer; whether the requests were carried out is unknown.
#[test]
fn an_overflow_of_the_receive_queue_is_an_error() {
    let overflow = || vec![Answer::Fails(Errno::ENOBUFS)];
    let expected = Error::new("ask 1", Errno::ENOBUFS);
    assert_eq!(executed(&[&ask(1)], overflow()), Err(expected.clone()));
    assert_eq!(queried(overflow()), Err(expected));

    let answers = vec![from_kernel(&[refused(1, Errno::EBUSY)]), Answer::Fails(Errno::ENOBUFS)];
    let error = executed(&[&ask(1), &ask(2)], answers);
    assert_eq!(
        error,
        Err(first_refused("ask 1", Errno::EBUSY)),
        "a refusal that arrived counts more"
    );
}

#[test]
fn an_overflow_of_the_receive_queue_makes_a_dump_begin_again() {
    let first = vec![
        from_kernel(&[object(1, Flags::empty(), 5)]),
        Answer::Fails(Errno::ENOBUFS),
        from_kernel(&[object(1, Flags::empty(), 7), done(1, 0)]),
    ];
    let second = vec![from_kernel(&[object(2, Flags::empty(), 8), done(2, 0)])];
    assert_eq!(dumped(vec![first, second]), Ok(vec![8]));
}

#[test]
fn a_missing_answer_is_an_error() {
    let expected = |purpose| Err(protocol_error(purpose, "answer is missing"));
    assert_eq!(executed(&[&ask(7), &ask(8)], vec![]), expected("ask 8"));
    assert_eq!(queried(vec![]), expected("ask 1").map(|()| 0));
    assert_eq!(dumped(vec![vec![]]), expected("ask 1").map(|()| vec![]));
    // An error of another request is no acknowledgement of the last.
    let answers = vec![from_kernel(&[refused(1, Errno::EBUSY)])];
    let error = executed(&[&ask(7), &ask(8)], answers);
    assert_eq!(error, Err(first_refused("ask 7", Errno::EBUSY)));
    // A dump without its end is incomplete.
    let unfinished = vec![from_kernel(&[object(1, Flags::empty(), 5)])];
    assert_eq!(dumped(vec![unfinished]), expected("ask 1").map(|()| vec![]));
}

#[test]
fn what_other_processes_send_is_dropped() {
    let forged = |bytes: &[u8]| Answer::From(4321, bytes.to_vec());
    let refusal = refused(1, Errno::EPERM);
    let answers = vec![forged(&refusal), from_kernel(&[ack(1)])];
    assert_eq!(executed(&[&ask(7)], answers), Ok(()));
    assert_eq!(
        executed(&[&ask(7)], vec![forged(&ack(1))]),
        Err(protocol_error("ask 7", "answer is missing"))
    );
    let real = || from_kernel(&[object(1, Flags::empty(), 5)]);
    let fake = object(1, Flags::empty(), 666);
    assert_eq!(queried(vec![forged(&fake), real()]), Ok(5));
    let answers = vec![forged(&fake), real(), forged(&done(1, 0)), from_kernel(&[done(1, 0)])];
    assert_eq!(dumped(vec![answers]), Ok(vec![5]));
    // Nor is it looked at: it may be malformed, or longer than the buffer.
    let answers = vec![forged(&[1, 2, 3]), forged(&[0; 10_000]), real()];
    assert_eq!(queried(answers), Ok(5));
}

#[test]
fn answers_to_other_requests_are_dropped() {
    let others = || {
        from_kernel(&[
            refused(0, Errno::EPERM),
            refused(9, Errno::EPERM),
            object(9, Flags::empty(), 666),
            done(9, 0),
        ])
    };
    assert_eq!(executed(&[&ask(7)], vec![others(), from_kernel(&[ack(1)])]), Ok(()));
    let answers = vec![others(), from_kernel(&[object(1, Flags::empty(), 5)])];
    assert_eq!(queried(answers), Ok(5));
    let dump = from_kernel(&[object(1, Flags::empty(), 5), done(1, 0)]);
    assert_eq!(dumped(vec![vec![others(), dump]]), Ok(vec![5]));
}

#[test]
fn a_malformed_answer_is_an_error() {
    let cases: [(&[u8], &str); 4] = [
        (&[1, 2, 3], "truncated message header"),
        (&[0; 16], "message length out of bounds"),
        (&[15, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], "message length out of bounds"),
        (&[20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], "message length out of bounds"),
    ];
    for (bytes, what) in cases {
        let answer = || vec![Answer::Datagram(bytes.to_vec())];
        let expected = protocol_error("ask 1", what);
        assert_eq!(executed(&[&ask(1)], answer()), Err(expected.clone()));
        assert_eq!(queried(answer()), Err(expected.clone()));
        assert_eq!(dumped(vec![answer()]), Err(expected));
    }
    let numberless = || vec![from_kernel(&[message(NLMSG_ERROR, Flags::empty(), 1, |_| ())])];
    let expected = protocol_error("ask 1", "error without number");
    assert_eq!(executed(&[&ask(1)], numberless()), Err(expected.clone()));
    assert_eq!(queried(numberless()), Err(expected.clone()));
    assert_eq!(dumped(vec![numberless()]), Err(expected));

    let empty = || vec![from_kernel(&[message(OBJECT, Flags::empty(), 1, |_| ()), done(1, 0)])];
    let expected = protocol_error("ask 1", "message without family header");
    assert_eq!(queried(empty()), Err(expected.clone()));
    assert_eq!(dumped(vec![empty()]), Err(expected));
}

#[test]
fn a_question_is_answered_by_an_object_or_an_error() {
    let refusal = Refusal {
        sequence: 1,
        errno: libc::ENODEV,
        words: Some("no such number"),
        offset: Some(16 + 8),
    };
    let expected = Error {
        kernel: Some("no such number".to_owned()),
        attribute: Some(TEXT),
        ..Error::new("ask 1", Errno::ENODEV)
    };
    assert_eq!(queried(vec![from_kernel(&[refusal.bytes()])]), Err(expected));
    let expected = protocol_error("ask 1", "answer without object");
    assert_eq!(queried(vec![from_kernel(&[ack(1)])]), Err(expected));
    let expected = protocol_error("ask 1", "expected a number");
    assert_eq!(
        queried(vec![from_kernel(&[message(99, Flags::empty(), 1, |_| ())])]),
        Err(expected)
    );
}

/// A message that ends in so much else that its datagram has `length` bytes.
fn padded(sequence: u32, number: u32, length: usize) -> Vec<u8> {
    let mut bytes = message(OBJECT, Flags::empty(), sequence, |out| {
        out.raw(&[0; 4]);
        for _ in 0..(length - 28) / 4096 {
            out.put(99, &[0xa5_u8; 4092][..]);
        }
        out.put(99, &vec![0xa5_u8; (length - 28) % 4096 - 4][..]);
        out.put(NUMBER, &number);
    });
    assert_eq!(bytes.len(), length);
    bytes.shrink_to_fit();
    bytes
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_again_with_more_room() {
    for length in [BUFFER, BUFFER + 4, 100_000, LARGEST_ANSWER] {
        let answers = (1..=2).map(|n| vec![Answer::Datagram(padded(n, 5, length))]).collect();
        let (mut kernel, record) = answering(answers);
        assert_eq!(kernel.query(&ask(1)), Ok(5), "{length} bytes");
        let asked: Vec<_> = record.borrow().iter().map(|bytes| sequences(&bytes.0)).collect();
        let expected: &[&[u32]] = if length == BUFFER { &[&[1]] } else { &[&[1], &[2]] };
        assert_eq!(asked, expected, "{length} bytes");
    }
}

#[test]
fn an_answer_that_grows_meanwhile_is_asked_for_until_it_fits() {
    let (mut kernel, record) = scripted(|datagram| {
        let sequence = sequences(datagram)[0];
        Ok(vec![Answer::Datagram(padded(sequence, 5, 8192 << (sequence - 1).min(6) | 64))])
    });
    assert_eq!(kernel.query(&ask(1)), Ok(5));
    assert_eq!(record.borrow().len(), 8, "the seventh made room for the eighth");

    let answer = vec![Answer::Datagram(padded(1, 5, LARGEST_ANSWER + 4))];
    assert_eq!(queried(answer), Err(protocol_error("ask 1", "answer of more than 1 MiB")));
}

#[test]
fn a_dump_is_read_over_several_datagrams() {
    let objects = |numbers: &[u32]| {
        let messages: Vec<_> = numbers.iter().map(|n| object(1, Flags::empty(), *n)).collect();
        from_kernel(&messages)
    };
    let with_end = from_kernel(&[object(1, Flags::empty(), 9), done(1, 0)]);
    let end = from_kernel(&[done(1, 0)]);
    assert_eq!(
        dumped(vec![vec![objects(&[5, 6]), objects(&[7, 8]), with_end]]),
        Ok(vec![5, 6, 7, 8, 9])
    );
    assert_eq!(dumped(vec![vec![objects(&[5]), objects(&[6]), end]]), Ok(vec![5, 6]));
    assert_eq!(dumped(vec![vec![from_kernel(&[done(1, 0)])]]), Ok(vec![]));
    // Its end need not say how it went.
    let bare = from_kernel(&[message(NLMSG_DONE, Flags::empty(), 1, |_| ())]);
    assert_eq!(dumped(vec![vec![objects(&[5]), bare]]), Ok(vec![5]));
}

#[test]
fn a_dump_is_asked_for_as_one() {
    let (mut kernel, record) = answering(vec![vec![from_kernel(&[done(1, 0)])]]);
    assert_eq!(kernel.dump(&ask(7)), Ok(vec![]));
    let expected = hex("
        2c000000 1200 0103 01000000 00000000   # type 18, REQUEST | DUMP
        a5a5a5a5 a5a5a5a5                      # family header
        0900 0300 74657874 00000000            # text
        0800 0400 07000000                     # 7
        ");
    assert_eq!(*record.borrow(), vec![expected]);
}

#[test]
fn an_interrupted_dump_begins_again() {
    let consistent = vec![from_kernel(&[object(3, Flags::empty(), 8), done(3, 0)])];
    // The mark is on an object, or on the end.
    let marked_object = vec![
        from_kernel(&[object(1, Flags::empty(), 5), object(1, Flags::DUMP_INTR, 6)]),
        from_kernel(&[object(1, Flags::empty(), 7), done(1, 0)]),
    ];
    let end = message(NLMSG_DONE, Flags::DUMP_INTR, 2, |out| out.raw(&[0; 4]));
    let marked_end = vec![from_kernel(&[object(2, Flags::empty(), 5), end])];
    assert_eq!(dumped(vec![marked_object, marked_end, consistent]), Ok(vec![8]));
}

#[test]
fn a_dump_that_is_always_interrupted_is_given_up() {
    let (mut kernel, record) = scripted(|datagram| {
        let sequence = sequences(datagram)[0];
        Ok(vec![from_kernel(&[object(sequence, Flags::DUMP_INTR, 5), done(sequence, 0)])])
    });
    assert_eq!(kernel.dump(&ask(1)), Err(Error::new("ask 1", Errno::EINTR)));
    assert_eq!(record.borrow().len(), DUMP_ATTEMPTS);
}

#[test]
fn a_dump_that_ends_with_an_error_is_one() {
    let answers = vec![from_kernel(&[object(1, Flags::empty(), 5), done(1, libc::ENOMEM)])];
    assert_eq!(dumped(vec![answers]), Err(Error::new("ask 1", Errno::ENOMEM)));
    let answers = vec![from_kernel(&[refused(1, Errno::EPERM)])];
    assert_eq!(dumped(vec![answers]), Err(Error::new("ask 1", Errno::EPERM)));
}

/// `RTM_GETADDR` with a prefix length of 24, over a socket with `NETLINK_GET_STRICT_CHK`. The end of a dump
/// repeats nothing of the request.
#[test]
fn the_kernels_words_are_read_from_the_end_of_a_dump() {
    let answer = hex("
        50000000 0300 0202 01000000 00000000   # NLMSG_DONE, MULTI | ACK_TLVS
        eaffffff                               # error -22
        3c00 0100 69707634 3a20496e 76616c69 64207661 # NLMSGERR_ATTR_MSG ipv4: Invalid values in header for address dump request
                  6c756573 20696e20 68656164 65722066
                  6f722061 64647265 73732064 756d7020
                  72657175 65737400
        ");
    let expected = Error {
        kernel: Some("ipv4: Invalid values in header for address dump request".to_owned()),
        ..Error::new("ask 1", Errno::EINVAL)
    };
    assert_eq!(dumped(vec![vec![Answer::Datagram(answer.0)]]), Err(expected));
}

/// A datagram of a dump that did not fit is cut anywhere; what of it has arrived, or has not, must not be
/// taken for anything. The kernel goes on with the dump only as it is received, and refuses another on the
/// same socket before its end.
#[test]
fn a_dump_that_does_not_fit_is_asked_for_again_with_more_room() {
    let long = |sequence| {
        let mut bytes = object(sequence, Flags::empty(), 5);
        bytes.extend(padded(sequence, 6, 10_000));
        bytes
    };
    // The end stands in a datagram of its own, or was cut off with the rest.
    let apart = |sequence| vec![from_kernel(&[long(sequence)]), from_kernel(&[done(sequence, 0)])];
    let together = |sequence| vec![from_kernel(&[long(sequence), done(sequence, 0)])];
    for dump in [&apart as &dyn Fn(u32) -> Vec<Answer>, &together] {
        let (mut kernel, record) = answering(vec![dump(1), dump(2)]);
        assert_eq!(kernel.dump(&ask(1)), Ok(vec![5, 6]));
        let asked: Vec<_> = record.borrow().iter().map(|bytes| sequences(&bytes.0)).collect();
        assert_eq!(asked, [[1], [2]]);
    }
}

#[test]
fn a_dump_that_does_not_fit_is_read_to_its_end_before_another() {
    /// Refuses a dump while another is under way.
    struct Busy(Scripted);
    impl Channel for Busy {
        fn send(&mut self, datagram: &[u8]) -> Result<(), Errno> {
            if self.0.queue.is_empty() { self.0.send(datagram) } else { Err(Errno::EBUSY) }
        }
        fn receive(&mut self, buffer: &mut [u8]) -> Result<Datagram, Errno> {
            self.0.receive(buffer)
        }
    }
    let (Socket { channel, .. }, _) = scripted(|datagram| {
        let sequence = sequences(datagram)[0];
        Ok(vec![
            Answer::Datagram(padded(sequence, 5, 10_000)),
            Answer::Datagram(padded(sequence, 6, 10_000)),
            Answer::Fails(Errno::EINTR),
            from_kernel(&[object(sequence, Flags::empty(), 7), done(sequence, 0)]),
        ])
    });
    assert_eq!(Socket::over(Busy(channel)).dump(&ask(1)), Ok(vec![5, 6, 7]));
}

#[test]
fn a_dump_without_end_is_an_error() {
    /// Goes on for ever, with an object in each datagram.
    struct Endless(Vec<u8>);
    impl Channel for Endless {
        fn send(&mut self, _: &[u8]) -> Result<(), Errno> {
            Ok(())
        }
        fn receive(&mut self, buffer: &mut [u8]) -> Result<Datagram, Errno> {
            let fits = self.0.len().min(buffer.len());
            buffer[..fits].copy_from_slice(&self.0[..fits]);
            Ok(Datagram { length: self.0.len(), sender: 0 })
        }
    }
    let endless = |datagram| Socket::over(Endless(datagram));
    let expected = protocol_error("ask 1", "answer has no end");
    let small = object(1, Flags::empty(), 7);
    assert_eq!(endless(small.clone()).dump(&ask(1)), Err(expected.clone()));
    // Also if there has to be more room first.
    assert_eq!(endless(padded(1, 7, 10_000)).dump(&ask(1)), Err(expected));
    let third = |before: &[u32], _: &u32| before.len() == 2;
    assert_eq!(endless(small).dump_up_to(&ask(1), third), Ok(vec![7, 7]));
}

#[test]
fn a_dump_of_more_than_a_mebibyte_at_once_is_an_error() {
    let answers = vec![Answer::Datagram(padded(1, 5, LARGEST_ANSWER + 4))];
    let expected = protocol_error("ask 1", "answer of more than 1 MiB");
    assert_eq!(dumped(vec![answers]), Err(expected));
}

/// libc keeps the numbers of the protocol as `c_int`.
#[test]
fn constants_are_the_kernels() {
    assert_eq!(i32::from(NLMSG_ERROR), libc::NLMSG_ERROR);
    assert_eq!(i32::from(NLMSG_DONE), libc::NLMSG_DONE);
}

/// Anything, or a message that looks like an answer: an error, an end or an object with anything in it.
fn datagrams() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let kinds = proptest::sample::select(&[NLMSG_ERROR, NLMSG_DONE, OBJECT][..]);
    let likely = (kinds, any::<u16>(), any::<Vec<u8>>()).prop_map(|(kind, flags, body)| {
        message(kind, Flags::from_bits_retain(flags), 1, |out| out.raw(&body))
    });
    proptest::collection::vec(prop_oneof![any::<Vec<u8>>(), likely], 0..8)
}

proptest! {
    /// Whatever the kernel answers, there is a result.
    #[test]
    fn any_answer_is_survived(datagrams in datagrams()) {
        let kernel = || {
            let datagrams = datagrams.clone();
            scripted(move |_| Ok(datagrams.iter().cloned().map(Answer::Datagram).collect())).0
        };
        let _ = kernel().execute(&[&ask(7)]);
        let _ = kernel().query(&ask(7));
        let _ = kernel().dump(&ask(7));
    }
}
