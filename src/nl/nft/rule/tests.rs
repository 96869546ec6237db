use super::*;
use crate::nl::nft::{Family, commit};
use crate::nl::testing::{Bytes, Refusal, answered, answering, done, hex, sent};

const INET: Table<'_> = Table { family: Family::Inet, name: "plumb" };
const BRIDGE: Table<'_> = Table { family: Family::Bridge, name: "plumb" };

/// `nft add table inet plumb`
///
/// nft(8) sets no `NLM_F_CREATE`, and asks for no acknowledgement. The kernel makes a table that is
/// missing either way.
#[test]
fn a_table_is_added_in_a_transaction() {
    let expected = hex("
        14000000 1000 0100 01000000 00000000   # NFNL_MSG_BATCH_BEGIN, REQUEST
        0000000a                               # struct nfgenmsg
        28000000 000a 0504 02000000 00000000   # NFT_MSG_NEWTABLE, REQUEST | ACK | CREATE
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_TABLE_NAME plumb
        0800 0200 00000000                     # NFTA_TABLE_FLAGS
        14000000 1100 0100 03000000 00000000   # NFNL_MSG_BATCH_END, REQUEST
        0000000a                               # struct nfgenmsg
        ");
    assert_eq!(sent(|kernel| commit(kernel, &[&AddTable(INET)])), expected);
}

/// `nft add chain inet plumb postrouting '{ type nat hook postrouting priority 100; }'`
///
/// nft(8) asks for no acknowledgement.
#[test]
fn a_chain_is_added_at_its_hook() {
    let hook = Hook { chain_type: "nat", number: 4, priority: 100 };
    let request = AddChain { table: INET, name: "postrouting", hook };
    let expected = hex("
        4c000000 030a 0504 01000000 00000000   # NFT_MSG_NEWCHAIN, REQUEST | ACK | CREATE
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_CHAIN_TABLE plumb
        1000 0300 706f7374 726f7574 696e6700   # NFTA_CHAIN_NAME postrouting
        0800 0700 6e617400                     # NFTA_CHAIN_TYPE nat
        1400 0480                              # NFTA_CHAIN_HOOK
          0800 0100 00000004                   # NFTA_HOOK_HOOKNUM
          0800 0200 00000064                   # NFTA_HOOK_PRIORITY
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `nft add chain bridge plumb prerouting '{ type filter hook prerouting priority -300; }'`
///
/// nft(8) asks for no acknowledgement.
#[test]
fn a_chain_can_come_before_others() {
    let hook = Hook { chain_type: "filter", number: 0, priority: -300 };
    let request = AddChain { table: BRIDGE, name: "prerouting", hook };
    let expected = hex("
        50000000 030a 0504 01000000 00000000   # NFT_MSG_NEWCHAIN, REQUEST | ACK | CREATE
        07000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_CHAIN_TABLE plumb
        0f00 0300 70726572 6f757469 6e670000   # NFTA_CHAIN_NAME prerouting
        0b00 0700 66696c74 65720000            # NFTA_CHAIN_TYPE filter
        1400 0480                              # NFTA_CHAIN_HOOK
          0800 0100 00000000                   # NFTA_HOOK_HOOKNUM
          0800 0200 fffffed4                   # NFTA_HOOK_PRIORITY
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `nft add rule inet plumb postrouting meta nfproto ipv4 ip saddr . ip saddr '&' 255.255.0.0 @m4 ip
/// saddr . ip daddr '&' 255.255.0.0 != @m4 ip daddr '&' 240.0.0.0 != 224.0.0.0 masquerade`
///
/// nft(8) asks for no acknowledgement, and writes two attributes that say nothing new: of a mask,
/// that it is one (`NFTA_BITWISE_OP`, 0), and of a look-up, the number of the set
/// (`NFTA_LOOKUP_SET_ID`), which only a set made in the same transaction needs.
#[test]
fn a_rule_is_appended_with_its_expressions() {
    let payload = |offset, to| Expression::Payload { base: Base::Network, offset, length: 4, to };
    let mask = Expression::Mask { register: REG32_01, mask: &[255, 255, 0, 0] };
    let expressions = [
        Expression::Meta { key: Meta::Protocol, to: REG_1 },
        Expression::Compare { register: REG_1, operation: Compare::Equal, with: &[2] },
        payload(12, REG_1),
        payload(12, REG32_01),
        mask,
        Expression::Lookup { set: "m4", register: REG_1, inverted: false },
        payload(12, REG_1),
        payload(16, REG32_01),
        mask,
        Expression::Lookup { set: "m4", register: REG_1, inverted: true },
        payload(16, REG_1),
        Expression::Mask { register: REG_1, mask: &[240, 0, 0, 0] },
        Expression::Compare {
            register: REG_1,
            operation: Compare::NotEqual,
            with: &[224, 0, 0, 0],
        },
        Expression::Masquerade,
    ];
    let request = AppendRule { table: INET, chain: "postrouting", expressions: &expressions };
    let expected = hex("
        e4020000 060a 050c 01000000 00000000   # NFT_MSG_NEWRULE, REQUEST | ACK | CREATE | APPEND
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_RULE_TABLE plumb
        1000 0200 706f7374 726f7574 696e6700   # NFTA_RULE_CHAIN postrouting
        b402 0480                              # NFTA_RULE_EXPRESSIONS
          2400 0180                            # NFTA_LIST_ELEM
            0900 0100 6d657461 00000000        # NFTA_EXPR_NAME meta
            1400 0280                          # NFTA_EXPR_DATA
              0800 0200 0000000f               # NFTA_META_KEY
              0800 0100 00000001               # NFTA_META_DREG
          2c00 0180                            # NFTA_LIST_ELEM
            0800 0100 636d7000                 # NFTA_EXPR_NAME cmp
            2000 0280                          # NFTA_EXPR_DATA
              0800 0100 00000001               # NFTA_CMP_SREG
              0800 0200 00000000               # NFTA_CMP_OP
              0c00 0380                        # NFTA_CMP_DATA
                0500 0100 02000000             # NFTA_DATA_VALUE
          3400 0180                            # NFTA_LIST_ELEM
            0c00 0100 7061796c 6f616400        # NFTA_EXPR_NAME payload
            2400 0280                          # NFTA_EXPR_DATA
              0800 0100 00000001               # NFTA_PAYLOAD_DREG
              0800 0200 00000001               # NFTA_PAYLOAD_BASE
              0800 0300 0000000c               # NFTA_PAYLOAD_OFFSET
              0800 0400 00000004               # NFTA_PAYLOAD_LEN
          3400 0180                            # NFTA_LIST_ELEM
            0c00 0100 7061796c 6f616400        # NFTA_EXPR_NAME payload
            2400 0280                          # NFTA_EXPR_DATA
              0800 0100 00000009               # NFTA_PAYLOAD_DREG
              0800 0200 00000001               # NFTA_PAYLOAD_BASE
              0800 0300 0000000c               # NFTA_PAYLOAD_OFFSET
              0800 0400 00000004               # NFTA_PAYLOAD_LEN
          4400 0180                            # NFTA_LIST_ELEM
            0c00 0100 62697477 69736500        # NFTA_EXPR_NAME bitwise
            3400 0280                          # NFTA_EXPR_DATA
              0800 0100 00000009               # NFTA_BITWISE_SREG
              0800 0200 00000009               # NFTA_BITWISE_DREG
              0800 0300 00000004               # NFTA_BITWISE_LEN
              0c00 0480                        # NFTA_BITWISE_MASK
                0800 0100 ffff0000             # NFTA_DATA_VALUE
              0c00 0580                        # NFTA_BITWISE_XOR
                0800 0100 00000000             # NFTA_DATA_VALUE
          2400 0180                            # NFTA_LIST_ELEM
            0b00 0100 6c6f6f6b 75700000        # NFTA_EXPR_NAME lookup
            1400 0280                          # NFTA_EXPR_DATA
              0800 0200 00000001               # NFTA_LOOKUP_SREG
              0700 0100 6d340000               # NFTA_LOOKUP_SET m4
          3400 0180                            # NFTA_LIST_ELEM
            0c00 0100 7061796c 6f616400        # NFTA_EXPR_NAME payload
            2400 0280                          # NFTA_EXPR_DATA
              0800 0100 00000001               # NFTA_PAYLOAD_DREG
              0800 0200 00000001               # NFTA_PAYLOAD_BASE
              0800 0300 0000000c               # NFTA_PAYLOAD_OFFSET
              0800 0400 00000004               # NFTA_PAYLOAD_LEN
          3400 0180                            # NFTA_LIST_ELEM
            0c00 0100 7061796c 6f616400        # NFTA_EXPR_NAME payload
            2400 0280                          # NFTA_EXPR_DATA
              0800 0100 00000009               # NFTA_PAYLOAD_DREG
              0800 0200 00000001               # NFTA_PAYLOAD_BASE
              0800 0300 00000010               # NFTA_PAYLOAD_OFFSET
              0800 0400 00000004               # NFTA_PAYLOAD_LEN
          4400 0180                            # NFTA_LIST_ELEM
            0c00 0100 62697477 69736500        # NFTA_EXPR_NAME bitwise
            3400 0280                          # NFTA_EXPR_DATA
              0800 0100 00000009               # NFTA_BITWISE_SREG
              0800 0200 00000009               # NFTA_BITWISE_DREG
              0800 0300 00000004               # NFTA_BITWISE_LEN
              0c00 0480                        # NFTA_BITWISE_MASK
                0800 0100 ffff0000             # NFTA_DATA_VALUE
              0c00 0580                        # NFTA_BITWISE_XOR
                0800 0100 00000000             # NFTA_DATA_VALUE
          2c00 0180                            # NFTA_LIST_ELEM
            0b00 0100 6c6f6f6b 75700000        # NFTA_EXPR_NAME lookup
            1c00 0280                          # NFTA_EXPR_DATA
              0800 0200 00000001               # NFTA_LOOKUP_SREG
              0700 0100 6d340000               # NFTA_LOOKUP_SET m4
              0800 0500 00000001               # NFTA_LOOKUP_FLAGS
          3400 0180                            # NFTA_LIST_ELEM
            0c00 0100 7061796c 6f616400        # NFTA_EXPR_NAME payload
            2400 0280                          # NFTA_EXPR_DATA
              0800 0100 00000001               # NFTA_PAYLOAD_DREG
              0800 0200 00000001               # NFTA_PAYLOAD_BASE
              0800 0300 00000010               # NFTA_PAYLOAD_OFFSET
              0800 0400 00000004               # NFTA_PAYLOAD_LEN
          4400 0180                            # NFTA_LIST_ELEM
            0c00 0100 62697477 69736500        # NFTA_EXPR_NAME bitwise
            3400 0280                          # NFTA_EXPR_DATA
              0800 0100 00000001               # NFTA_BITWISE_SREG
              0800 0200 00000001               # NFTA_BITWISE_DREG
              0800 0300 00000004               # NFTA_BITWISE_LEN
              0c00 0480                        # NFTA_BITWISE_MASK
                0800 0100 f0000000             # NFTA_DATA_VALUE
              0c00 0580                        # NFTA_BITWISE_XOR
                0800 0100 00000000             # NFTA_DATA_VALUE
          2c00 0180                            # NFTA_LIST_ELEM
            0800 0100 636d7000                 # NFTA_EXPR_NAME cmp
            2000 0280                          # NFTA_EXPR_DATA
              0800 0100 00000001               # NFTA_CMP_SREG
              0800 0200 00000001               # NFTA_CMP_OP
              0c00 0380                        # NFTA_CMP_DATA
                0800 0100 e0000000             # NFTA_DATA_VALUE
          1400 0180                            # NFTA_LIST_ELEM
            0900 0100 6d617371 00000000        # NFTA_EXPR_NAME masq
            0400 0280                          # NFTA_EXPR_DATA
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `nft add rule bridge plumb prerouting iifname @guarded iifname . ether saddr != @spoof drop`
///
/// nft(8) asks for no acknowledgement, and also writes the numbers of the sets
/// (`NFTA_LOOKUP_SET_ID`).
#[test]
fn a_rule_can_drop_by_link_and_sender() {
    let expressions = [
        Expression::Meta { key: Meta::InputName, to: REG_1 },
        Expression::Lookup { set: "guarded", register: REG_1, inverted: false },
        Expression::Meta { key: Meta::InputName, to: REG_1 },
        Expression::Payload { base: Base::Link, offset: 6, length: 6, to: REG_2 },
        Expression::Lookup { set: "spoof", register: REG_1, inverted: true },
        Expression::Drop,
    ];
    let request = AppendRule { table: BRIDGE, chain: "prerouting", expressions: &expressions };
    let expected = hex("
        38010000 060a 050c 01000000 00000000   # NFT_MSG_NEWRULE, REQUEST | ACK | CREATE | APPEND
        07000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_RULE_TABLE plumb
        0f00 0200 70726572 6f757469 6e670000   # NFTA_RULE_CHAIN prerouting
        0801 0480                              # NFTA_RULE_EXPRESSIONS
          2400 0180                            # NFTA_LIST_ELEM
            0900 0100 6d657461 00000000        # NFTA_EXPR_NAME meta
            1400 0280                          # NFTA_EXPR_DATA
              0800 0200 00000006               # NFTA_META_KEY
              0800 0100 00000001               # NFTA_META_DREG
          2800 0180                            # NFTA_LIST_ELEM
            0b00 0100 6c6f6f6b 75700000        # NFTA_EXPR_NAME lookup
            1800 0280                          # NFTA_EXPR_DATA
              0800 0200 00000001               # NFTA_LOOKUP_SREG
              0c00 0100 67756172 64656400      # NFTA_LOOKUP_SET guarded
          2400 0180                            # NFTA_LIST_ELEM
            0900 0100 6d657461 00000000        # NFTA_EXPR_NAME meta
            1400 0280                          # NFTA_EXPR_DATA
              0800 0200 00000006               # NFTA_META_KEY
              0800 0100 00000001               # NFTA_META_DREG
          3400 0180                            # NFTA_LIST_ELEM
            0c00 0100 7061796c 6f616400        # NFTA_EXPR_NAME payload
            2400 0280                          # NFTA_EXPR_DATA
              0800 0100 00000002               # NFTA_PAYLOAD_DREG
              0800 0200 00000000               # NFTA_PAYLOAD_BASE
              0800 0300 00000006               # NFTA_PAYLOAD_OFFSET
              0800 0400 00000006               # NFTA_PAYLOAD_LEN
          3000 0180                            # NFTA_LIST_ELEM
            0b00 0100 6c6f6f6b 75700000        # NFTA_EXPR_NAME lookup
            2000 0280                          # NFTA_EXPR_DATA
              0800 0200 00000001               # NFTA_LOOKUP_SREG
              0a00 0100 73706f6f 66000000      # NFTA_LOOKUP_SET spoof
              0800 0500 00000001               # NFTA_LOOKUP_FLAGS
          3000 0180                            # NFTA_LIST_ELEM
            0e00 0100 696d6d65 64696174 65000000 # NFTA_EXPR_NAME immediate
            1c00 0280                          # NFTA_EXPR_DATA
              0800 0100 00000000               # NFTA_IMMEDIATE_DREG
              1000 0280                        # NFTA_IMMEDIATE_DATA
                0c00 0280                      # NFTA_DATA_VERDICT
                  0800 0100 00000000           # NFTA_VERDICT_CODE
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `nft add rule inet plumb postrouting ip saddr @s masquerade`, as `nft list chain inet plumb
/// postrouting` has it told.
#[test]
fn the_sets_that_a_chain_looks_up_in_are_read() {
    let rules = hex("
        04010000 060a 0208 01000000 00000000   # NFT_MSG_NEWRULE, MULTI
        01000005                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_RULE_TABLE plumb
        1000 0200 706f7374 726f7574 696e6700   # NFTA_RULE_CHAIN postrouting
        0c00 0300 00000000 00000003            # NFTA_RULE_HANDLE
        c800 0400                              # NFTA_RULE_EXPRESSIONS
          2400 0100                            # NFTA_LIST_ELEM
            0900 0100 6d657461 00000000        # NFTA_EXPR_NAME meta
            1400 0200                          # NFTA_EXPR_DATA
              0800 0200 0000000f               # NFTA_META_KEY
              0800 0100 00000001               # NFTA_META_DREG
          2c00 0100                            # NFTA_LIST_ELEM
            0800 0100 636d7000                 # NFTA_EXPR_NAME cmp
            2000 0200                          # NFTA_EXPR_DATA
              0800 0100 00000001               # NFTA_CMP_SREG
              0800 0200 00000000               # NFTA_CMP_OP
              0c00 0300                        # NFTA_CMP_DATA
                0500 0100 02000000             # NFTA_DATA_VALUE
          3400 0100                            # NFTA_LIST_ELEM
            0c00 0100 7061796c 6f616400        # NFTA_EXPR_NAME payload
            2400 0200                          # NFTA_EXPR_DATA
              0800 0100 00000001               # NFTA_PAYLOAD_DREG
              0800 0200 00000001               # NFTA_PAYLOAD_BASE
              0800 0300 0000000c               # NFTA_PAYLOAD_OFFSET
              0800 0400 00000004               # NFTA_PAYLOAD_LEN
          2c00 0100                            # NFTA_LIST_ELEM
            0b00 0100 6c6f6f6b 75700000        # NFTA_EXPR_NAME lookup
            1c00 0200                          # NFTA_EXPR_DATA
              0600 0100 73000000               # NFTA_LOOKUP_SET s
              0800 0200 00000001               # NFTA_LOOKUP_SREG
              0800 0500 00000000               # NFTA_LOOKUP_FLAGS
          1400 0100                            # NFTA_LIST_ELEM
            0900 0100 6d617371 00000000        # NFTA_EXPR_NAME masq
            0400 0200                          # NFTA_EXPR_DATA
        ");
    let answers = [rules, Bytes(done(1, 0))];
    for (set, expected) in [("s", true), ("other", false), ("masq", false)] {
        let found = answered(&answers, |kernel| looks_up(kernel, INET, "postrouting", set));
        assert_eq!(found, Ok(expected), "{set}");
    }
}

/// `nft list chain inet plumb postrouting`
///
/// nft(8) asks for all rules of the table in one dump.
#[test]
fn the_rules_of_a_chain_are_asked_for() {
    let (mut kernel, record) = answering(vec![vec![]]);
    let _ = looks_up(&mut kernel, INET, "postrouting", "s");
    let expected = hex("
        30000000 070a 0103 01000000 00000000   # NFT_MSG_GETRULE, REQUEST | DUMP
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_RULE_TABLE plumb
        1000 0200 706f7374 726f7574 696e6700   # NFTA_RULE_CHAIN postrouting
        ");
    assert_eq!(record.borrow()[0], expected);
}

#[test]
fn a_chain_that_is_missing_looks_up_in_nothing() {
    let refused = |errno| Bytes(Refusal { sequence: 1, errno, ..Refusal::default() }.bytes());
    let missing = [refused(libc::ENOENT)];
    assert_eq!(answered(&missing, |k| looks_up(k, INET, "postrouting", "s")), Ok(false));
    let error = Error::new("list rules of chain postrouting of table inet plumb", Errno::EPERM);
    let refused = [refused(libc::EPERM)];
    assert_eq!(answered(&refused, |k| looks_up(k, INET, "postrouting", "s")), Err(error));
}

#[test]
fn purposes_name_table_and_chain() {
    let hook = Hook { chain_type: "nat", number: 4, priority: 100 };
    let purposes: [(&dyn Request, &str); 3] = [
        (&AddTable(INET), "create nf_tables table inet plumb"),
        (
            &AddChain { table: INET, name: "postrouting", hook },
            "create nat chain postrouting in table inet plumb",
        ),
        (
            &AppendRule { table: BRIDGE, chain: "prerouting", expressions: &[] },
            "add a rule to chain prerouting of table bridge plumb",
        ),
    ];
    for (request, expected) in purposes {
        assert_eq!(request.to_string(), expected);
    }
}

/// libc has but these of the constants; the others are held against what nft(8) sends, above.
#[test]
fn constants_are_the_kernels() {
    assert_eq!(i32::from(NLM_F_APPEND.bits()), libc::NLM_F_APPEND);
    assert_eq!(NFT_LOOKUP_F_INV, libc::NFT_LOOKUP_F_INV.cast_unsigned());
    assert_eq!(NF_DROP, libc::NF_DROP.cast_unsigned());
}
