//! The index: one file beside the leases that answers, at a cost that does not depend on their number,
//! which address is free and which addresses an attachment holds.
//!
//! It is only ever a hint. Leases are files, and each answer is checked against them: creating a file
//! exclusively decides an allocation, a file's content decides a release. The index says itself whether
//! it can be current: after each change of ours the directory's modification time is set to the
//! [`Stamp`] that is recorded here, and whoever else changes the directory overwrites that with the
//! clock. The order of every change is: lease file, index, stamp; so a process killed anywhere leaves
//! an index that shows it is out of date, and the next one rebuilds it.
//!
//! # Format
//! Numbers are in host order; the file never leaves the machine.
//!
//! | part | size | content |
//! | --- | --- | --- |
//! | header | 64 | see `Header` |
//! | slots | 32 × 2ⁿ | hash table with linear probing: key of an attachment → one of its addresses |
//! | blocks | 544 × 2ᵐ | hash table with linear probing: 4096 consecutive addresses → bitmap of those leased |
//!
//! Bitmaps belong to addresses rather than to configured ranges, so the index outlives a change of the
//! configuration, and an IPv6 /64 costs no more than the leases in it.

#![expect(
    clippy::cast_possible_truncation,
    reason = "tables have at most 2^28 places, and numbers are cut to their low bits on purpose"
)]

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;

use crate::net::{from_bits, to_bits};

const MAGIC: [u8; 8] = *b"PLUMBIX1";
const HEADER_SIZE: usize = 64;
const SLOT_SIZE: usize = 32;
const BLOCK_TAG: usize = 32;
const BLOCK_SIZE: usize = BLOCK_TAG + 512;
/// Addresses of a block, as a power of two.
const BLOCK_LOG2: u32 = 12;
const SMALLEST_SLOTS_LOG2: u32 = 7;
const SMALLEST_BLOCKS_LOG2: u32 = 2;
/// No index of a lease directory that could exist is larger; a header that says more is damaged.
const LARGEST_LOG2: u32 = 28;
/// A new block costs as much of a rewriting as this many new leases: about the ratio of their sizes.
const LEASES_OF_BLOCK: usize = BLOCK_SIZE / SLOT_SIZE - 1;
/// Slots read at once while probing.
const PROBE: usize = 8;

/// First byte of a slot's or block's place: nothing yet, or a slot whose lease has gone.
const EMPTY: u8 = 0;
const GONE: u8 = 0xff;

/// A modification time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Stamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanoseconds: i64,
}

impl Stamp {
    /// What no directory bears: an index that is not sealed.
    pub const NEVER: Self = Self { seconds: 0, nanoseconds: -1 };
}

/// What identifies a boot of the machine: `/proc/sys/kernel/random/boot_id`.
pub type BootId = [u8; 16];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    /// The boot in which the leases were made.
    boot: BootId,
    stamp: Stamp,
    slots_log2: u32,
    blocks_log2: u32,
    /// Slots that are not [`EMPTY`].
    slots_used: u32,
    blocks_used: u32,
}

impl Header {
    fn decode(bytes: &[u8; HEADER_SIZE]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let i64_at = |at: usize| Some(i64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        if !bytes.starts_with(&MAGIC) || u32_at(56)? != checksum(bytes.get(..56)?) {
            return None;
        }
        let header = Self {
            boot: *bytes.get(8..)?.first_chunk()?,
            stamp: Stamp { seconds: i64_at(24)?, nanoseconds: i64_at(32)? },
            slots_log2: u32_at(40)?,
            blocks_log2: u32_at(44)?,
            slots_used: u32_at(48)?,
            blocks_used: u32_at(52)?,
        };
        (header.slots_log2 <= LARGEST_LOG2 && header.blocks_log2 <= LARGEST_LOG2).then_some(header)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_SIZE);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.boot);
        bytes.extend_from_slice(&self.stamp.seconds.to_ne_bytes());
        bytes.extend_from_slice(&self.stamp.nanoseconds.to_ne_bytes());
        for number in [self.slots_log2, self.blocks_log2, self.slots_used, self.blocks_used] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_ne_bytes());
        bytes.resize(HEADER_SIZE, 0);
        bytes
    }

    fn slots(&self) -> u64 {
        1 << self.slots_log2
    }

    fn blocks(&self) -> u64 {
        1 << self.blocks_log2
    }

    /// Whether the slots are half taken, which makes probing long.
    fn slots_crowded(&self) -> bool {
        u64::from(self.slots_used) * 2 >= self.slots()
    }

    /// Whether the blocks are taken to three quarters.
    fn blocks_crowded(&self) -> bool {
        u64::from(self.blocks_used) * 4 >= self.blocks() * 3
    }

    fn slot_offset(&self, slot: u64) -> u64 {
        HEADER_SIZE as u64 + (slot & (self.slots() - 1)) * SLOT_SIZE as u64
    }

    fn block_offset(&self, block: u64) -> u64 {
        self.slot_offset(0)
            + self.slots() * SLOT_SIZE as u64
            + (block & (self.blocks() - 1)) * BLOCK_SIZE as u64
    }
}

/// A lease as the index knows it: the address, and the key of the attachment that holds it. `None` is
/// for a lease whose holder can't be told.
pub type Entry = (IpAddr, Option<u64>);

/// The open index of one lease directory. Use only under the directory's lock.
#[derive(Debug)]
pub struct Index {
    file: File,
    header: Option<Header>,
}

impl Index {
    /// Reads the header of the index in `file`. A damaged one counts as none.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn open(file: File) -> io::Result<Self> {
        let mut bytes = [0; HEADER_SIZE];
        let header = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Header::decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok(Self { file, header })
    }

    /// The boot in which the leases were made, and when we changed the directory last; `None` without
    /// a sound header.
    #[must_use]
    pub fn recorded(&self) -> Option<(BootId, Stamp)> {
        self.header.map(|header| (header.boot, header.stamp))
    }

    /// The first address from `from` to `to` that is not marked as leased. The numbers are addresses of
    /// `family`'s family.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn next_free(&self, family: IpAddr, from: u128, to: u128) -> io::Result<Option<u128>> {
        let mut from = from;
        while from <= to {
            let base = from >> BLOCK_LOG2;
            let Some((_, block)) = self.find_block(family, base)? else { return Ok(Some(from)) };
            if let Some(free) = next_zero(block.bits(), bit_of(from)) {
                let address = (base << BLOCK_LOG2) + free as u128;
                return Ok((address <= to).then_some(address));
            }
            match (base + 1).checked_shl(BLOCK_LOG2) {
                Some(next) if next > from => from = next,
                _ => break,
            }
        }
        Ok(None)
    }

    /// The addresses that were noted for the attachment of this key, or for another one of the same key.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn addresses(&self, key: u64) -> io::Result<Vec<IpAddr>> {
        let mut found = Vec::new();
        self.probe(key, |slot, _| {
            if slot.key() == key {
                found.extend(slot.address());
            }
            false
        })?;
        Ok(found)
    }

    /// Notes a lease.
    ///
    /// Once in a while that rewrites the index, with room enough that the next time is far: see
    /// `Tables::with_room_for`.
    ///
    /// # Errors
    /// Those of pread(2) and pwrite(2).
    pub fn insert(&mut self, entry: Entry) -> io::Result<()> {
        if !self.insert_if_roomy(entry)?
            && let Some(header) = self.header
        {
            let entries = self.entries()?;
            self.rewrite(header.boot, &entries)?;
            self.insert_if_roomy(entry)?;
        }
        Ok(())
    }

    /// Notes a lease; false if that takes a new place in a table that is crowded. What was used before
    /// is used again, so that whoever comes and goes takes no room.
    fn insert_if_roomy(&mut self, (address, key): Entry) -> io::Result<bool> {
        if !self.set_bit(address, true)? {
            return Ok(false);
        }
        let (Some(header), Some(key)) = (self.header, key) else { return Ok(true) };
        let mut place = None;
        self.probe(key, |slot, offset| {
            place = slot.is_free().then_some((offset, slot.kind()));
            place.is_some()
        })?;
        // A table that is never more than half full has a free slot.
        let Some((offset, kind)) = place else { return Ok(true) };
        if kind == EMPTY && header.slots_crowded() {
            return Ok(false);
        }
        self.file.write_all_at(&Slot::new(key, address).0, offset)?;
        self.update(|header| header.slots_used += u32::from(kind == EMPTY));
        Ok(true)
    }

    /// Forgets a lease.
    ///
    /// # Errors
    /// Those of pread(2) and pwrite(2).
    pub fn remove(&mut self, (address, key): Entry) -> io::Result<()> {
        self.set_bit(address, false)?;
        if let Some(key) = key {
            let mut place = None;
            self.probe(key, |slot, offset| {
                let this = slot.key() == key && slot.address() == Some(address);
                place = this.then_some(offset);
                this
            })?;
            if let Some(offset) = place {
                self.file.write_all_at(&[GONE], offset)?;
            }
        }
        Ok(())
    }

    /// Builds the index anew from all leases of the directory.
    ///
    /// It is brought to the disk, so that the boot in which the leases were made is known even after a
    /// power loss.
    ///
    /// # Errors
    /// Those of pwrite(2) and fdatasync(2).
    pub fn rebuild(&mut self, boot: BootId, entries: &[Entry]) -> io::Result<()> {
        self.rewrite(boot, entries)?;
        self.file.sync_data()
    }

    /// Records the directory's modification time: what is in the index is current as long as the
    /// directory bears it.
    ///
    /// # Errors
    /// Those of pwrite(2).
    pub fn seal(&mut self, stamp: Stamp) -> io::Result<()> {
        self.update(|header| header.stamp = stamp);
        match self.header {
            Some(header) => self.file.write_all_at(&header.encode(), 0),
            None => Ok(()),
        }
    }

    /// Writes a new index, with room for more.
    fn rewrite(&mut self, boot: BootId, entries: &[Entry]) -> io::Result<()> {
        let mut tables = Tables::with_room_for(entries);
        for (address, key) in entries {
            tables.insert(*address, *key);
        }
        // Until the new header is written there is none: the tables don't fit the old one.
        self.header = None;
        self.file.write_all_at(&[0; HEADER_SIZE], 0)?;
        self.file.set_len(HEADER_SIZE as u64 + tables.bytes.len() as u64)?;
        self.file.write_all_at(&tables.bytes, HEADER_SIZE as u64)?;
        let header = Header {
            boot,
            stamp: Stamp::NEVER,
            slots_log2: tables.slots_log2,
            blocks_log2: tables.blocks_log2,
            slots_used: tables.slots_used,
            blocks_used: tables.blocks_used,
        };
        self.file.write_all_at(&header.encode(), 0)?;
        self.header = Some(header);
        Ok(())
    }

    /// All leases, out of both tables.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let Some(header) = self.header else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        let mut held = HashSet::new();
        for start in (0..header.slots()).step_by(1 << 10) {
            let mut bytes = vec![0; SLOT_SIZE * header.slots().min(1 << 10) as usize];
            self.file.read_exact_at(&mut bytes, header.slot_offset(start))?;
            for slot in bytes.as_chunks::<SLOT_SIZE>().0.iter().map(|bytes| Slot(*bytes)) {
                if let Some(address) = slot.address() {
                    entries.push((address, Some(slot.key())));
                    held.insert(address);
                }
            }
        }
        for number in 0..header.blocks() {
            let block = self.read_block(header.block_offset(number))?;
            let Some(family) = block.family() else { continue };
            for (byte, bits) in block.bits().iter().enumerate() {
                for bit in (0..8).filter(|bit| bits & (1 << bit) != 0) {
                    let number = (block.base() << BLOCK_LOG2) + (byte * 8 + bit) as u128;
                    let address = from_bits(family, number);
                    if !held.contains(&address) {
                        entries.push((address, None));
                    }
                }
            }
        }
        Ok(entries)
    }

    /// False if the bit is to be set in a new block, and the table of blocks is crowded.
    fn set_bit(&mut self, address: IpAddr, value: bool) -> io::Result<bool> {
        let Some(header) = self.header else { return Ok(true) };
        let number = to_bits(address);
        let (byte, mask) = (bit_of(number) / 8, 1_u8 << (bit_of(number) % 8));
        let base = number >> BLOCK_LOG2;
        match self.find_block(address, base)? {
            Some((offset, block)) => {
                let old = block.bits().get(byte).copied().unwrap_or(0);
                let new = if value { old | mask } else { old & !mask };
                self.file.write_all_at(&[new], offset + (BLOCK_TAG + byte) as u64)?;
            }
            None if !value => {}
            None if header.blocks_crowded() => return Ok(false),
            None => {
                let mut block = Block::new(address, base);
                if let Some(bits) = block.0.get_mut(BLOCK_TAG + byte) {
                    *bits |= mask;
                }
                self.file.write_all_at(&block.0, self.free_block(header, address, base)?)?;
                self.update(|header| header.blocks_used += 1);
            }
        }
        Ok(true)
    }

    /// Shows `each` the slots from the key's place on, with their offsets, until it says that it is
    /// done, or an empty one has been shown.
    fn probe(&self, key: u64, mut each: impl FnMut(Slot, u64) -> bool) -> io::Result<()> {
        let Some(header) = self.header else { return Ok(()) };
        let mut slot = key & (header.slots() - 1);
        let mut seen = 0;
        while seen < header.slots() {
            let run = (header.slots() - slot).min(PROBE as u64);
            let mut bytes = [0; SLOT_SIZE * PROBE];
            let length = SLOT_SIZE * run as usize;
            let offset = header.slot_offset(slot);
            self.file.read_exact_at(bytes.get_mut(..length).unwrap_or_default(), offset)?;
            for (bytes, at) in bytes.as_chunks::<SLOT_SIZE>().0.iter().zip(0..run) {
                let found = Slot(*bytes);
                let empty = found.kind() == EMPTY;
                if each(found, offset + at * SLOT_SIZE as u64) || empty {
                    return Ok(());
                }
            }
            seen += run;
            slot = (slot + run) & (header.slots() - 1);
        }
        Ok(())
    }

    fn find_block(&self, family: IpAddr, base: u128) -> io::Result<Option<(u64, Block)>> {
        let Some(header) = self.header else { return Ok(None) };
        let start = block_hash(family, base);
        for step in 0..header.blocks() {
            let offset = header.block_offset(start.wrapping_add(step));
            let block = self.read_block(offset)?;
            match block.family() {
                None => return Ok(None),
                Some(f) if f.is_ipv4() == family.is_ipv4() && block.base() == base => {
                    return Ok(Some((offset, block)));
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }

    fn free_block(&self, header: Header, family: IpAddr, base: u128) -> io::Result<u64> {
        let start = block_hash(family, base);
        for step in 0..header.blocks() {
            let offset = header.block_offset(start.wrapping_add(step));
            if self.read_block(offset)?.family().is_none() {
                return Ok(offset);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the index of leases is damaged"))
    }

    fn read_block(&self, offset: u64) -> io::Result<Block> {
        let mut block = Block([0; BLOCK_SIZE]);
        self.file.read_exact_at(&mut block.0, offset)?;
        Ok(block)
    }

    fn update(&mut self, change: impl FnOnce(&mut Header)) {
        if let Some(header) = &mut self.header {
            change(header);
        }
    }
}

/// The two tables in memory, while they are built.
struct Tables {
    bytes: Vec<u8>,
    slots_log2: u32,
    blocks_log2: u32,
    slots_used: u32,
    blocks_used: u32,
}

impl Tables {
    /// Empty tables, large enough that after these entries as many leases again can come before they
    /// are crowded, and as many blocks again. A rewriting costs as much as there are leases, however
    /// few their blocks: so there is room for a share of the leases in new blocks, too. Otherwise one
    /// attachment that moves from block to block could have thousands of leases rewritten at each step.
    fn with_room_for(entries: &[Entry]) -> Self {
        let log2 = |count: usize| count.next_power_of_two().trailing_zeros();
        let bases: HashSet<_> = entries
            .iter()
            .map(|(address, _)| (address.is_ipv4(), to_bits(*address) >> BLOCK_LOG2))
            .collect();
        let slots_log2 = log2(entries.len() * 4).max(SMALLEST_SLOTS_LOG2);
        let blocks = bases.len() + bases.len().max(entries.len() / LEASES_OF_BLOCK);
        let blocks_log2 = log2(blocks.div_ceil(3) * 4).max(SMALLEST_BLOCKS_LOG2);
        let size = (SLOT_SIZE << slots_log2) + (BLOCK_SIZE << blocks_log2);
        Self { bytes: vec![0; size], slots_log2, blocks_log2, slots_used: 0, blocks_used: 0 }
    }

    fn insert(&mut self, address: IpAddr, key: Option<u64>) {
        if let Some(key) = key {
            let slots = 1_usize << self.slots_log2;
            let mut number = (key & (slots as u64 - 1)) as usize;
            while self.bytes.get(number * SLOT_SIZE).is_some_and(|kind| *kind != EMPTY) {
                number = (number + 1) % slots;
            }
            self.write(number * SLOT_SIZE, &Slot::new(key, address).0);
            self.slots_used += 1;
        }
        let blocks = 1_usize << self.blocks_log2;
        let base = to_bits(address) >> BLOCK_LOG2;
        let new = Block::new(address, base);
        let mut number = (block_hash(address, base) & (blocks as u64 - 1)) as usize;
        let place = loop {
            let place = (SLOT_SIZE << self.slots_log2) + number * BLOCK_SIZE;
            let tag = self.bytes.get(place..place + BLOCK_TAG).unwrap_or_default();
            if tag.first() == Some(&EMPTY) {
                self.write(place, &new.0);
                self.blocks_used += 1;
                break place;
            }
            if new.0.starts_with(tag) {
                break place;
            }
            number = (number + 1) % blocks;
        };
        let bit = bit_of(to_bits(address));
        if let Some(bits) = self.bytes.get_mut(place + BLOCK_TAG + bit / 8) {
            *bits |= 1 << (bit % 8);
        }
    }

    fn write(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }
}

/// Byte 0: 4 or 6, [`EMPTY`] or [`GONE`]; 8–15: the key; 16–31: the address as a number.
struct Slot([u8; SLOT_SIZE]);

impl Slot {
    fn new(key: u64, address: IpAddr) -> Self {
        let mut slot = [0; SLOT_SIZE];
        slot[0] = kind_of(address);
        slot[8..16].copy_from_slice(&key.to_ne_bytes());
        slot[16..32].copy_from_slice(&to_bits(address).to_ne_bytes());
        Self(slot)
    }

    fn kind(&self) -> u8 {
        self.0[0]
    }

    fn is_free(&self) -> bool {
        family_of(self.kind()).is_none()
    }

    fn key(&self) -> u64 {
        self.0[8..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    /// The address; `None` of a free slot.
    fn address(&self) -> Option<IpAddr> {
        let number = u128::from_ne_bytes(*self.0.last_chunk()?);
        Some(from_bits(family_of(self.kind())?, number))
    }
}

/// Byte 0: 4, 6 or [`EMPTY`]; 16–31: the addresses' number, shifted; then the bitmap.
struct Block([u8; BLOCK_SIZE]);

impl Block {
    fn new(family: IpAddr, base: u128) -> Self {
        let mut block = [0; BLOCK_SIZE];
        block[0] = kind_of(family);
        block[16..BLOCK_TAG].copy_from_slice(&base.to_ne_bytes());
        Self(block)
    }

    fn family(&self) -> Option<IpAddr> {
        family_of(self.0[0])
    }

    fn base(&self) -> u128 {
        self.0[16..].first_chunk().map_or(0, |bytes| u128::from_ne_bytes(*bytes))
    }

    fn bits(&self) -> &[u8] {
        &self.0[BLOCK_TAG..]
    }
}

fn kind_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

fn family_of(kind: u8) -> Option<IpAddr> {
    match kind {
        4 => Some([0; 4].into()),
        6 => Some([0_u16; 8].into()),
        _ => None,
    }
}

fn block_hash(family: IpAddr, base: u128) -> u64 {
    let folded = base as u64 ^ (base >> 64) as u64 ^ u64::from(family.is_ipv4()) << 63;
    // Fibonacci hashing: neighbouring blocks must not crowd one place.
    folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// Which bit of its block an address has.
fn bit_of(number: u128) -> usize {
    number as usize % (1 << BLOCK_LOG2)
}

/// Index of the first zero bit from `from` on, a word at a time.
fn next_zero(bits: &[u8], from: usize) -> Option<usize> {
    let first_word = from / 64;
    let words = bits.as_chunks::<8>().0.iter().enumerate().skip(first_word);
    for (index, bytes) in words {
        let mut word = u64::from_le_bytes(*bytes);
        if index == first_word {
            word |= (1 << (from % 64)) - 1;
        }
        if word != u64::MAX {
            return Some(index * 64 + word.trailing_ones() as usize);
        }
    }
    None
}

/// FNV-1a over the header: it tells damage from data, no more.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOT: BootId = [7; 16];

    fn empty() -> Index {
        let mut index = Index::open(tempfile::tempfile().unwrap()).unwrap();
        assert_eq!(index.recorded(), None);
        index.rebuild(BOOT, &[]).unwrap();
        index.seal(Stamp { seconds: 1, nanoseconds: 2 }).unwrap();
        index
    }

    fn reopen(index: &Index) -> Index {
        Index::open(index.file.try_clone().unwrap()).unwrap()
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn what_was_sealed_is_read_back() {
        let mut index = empty();
        index.insert((v4(0x0a01_0002), Some(99))).unwrap();
        index.seal(Stamp { seconds: 5, nanoseconds: 6 }).unwrap();
        let index = reopen(&index);
        assert_eq!(index.recorded(), Some((BOOT, Stamp { seconds: 5, nanoseconds: 6 })));
        assert_eq!(index.addresses(99).unwrap(), [v4(0x0a01_0002)]);
        assert_eq!(index.addresses(98).unwrap(), [] as [IpAddr; 0]);
    }

    #[test]
    fn a_free_address_is_found_across_words_and_blocks() {
        let mut index = empty();
        let (first, last) = (0x0a01_0ff0_u32, 0x0a01_1010_u32);
        for number in first..last {
            index.insert((v4(number), Some(1))).unwrap();
        }
        let free = |index: &Index, from: u32, to: u32| {
            index.next_free(v4(0), from.into(), to.into()).unwrap()
        };
        assert_eq!(free(&index, first, u32::MAX), Some(last.into()));
        assert_eq!(free(&index, first, last - 1), None);
        assert_eq!(free(&index, last - 1, last), Some(last.into()));
        index.remove((v4(first + 7), Some(1))).unwrap();
        assert_eq!(free(&index, first, last), Some((first + 7).into()));
        // IPv6 addresses of the same numbers are others.
        assert_eq!(
            index.next_free([0_u16; 8].into(), first.into(), last.into()).unwrap(),
            Some(first.into())
        );
        assert_eq!(
            index.next_free([0_u16; 8].into(), u128::MAX, u128::MAX).unwrap(),
            Some(u128::MAX)
        );
    }

    #[test]
    fn the_tables_grow_and_shed_what_has_gone() {
        let mut index = empty();
        for number in 0..20_000_u32 {
            let entry = (v4(number * 5), Some(u64::from(number) * 3));
            index.insert(entry).unwrap();
            if number >= 100 {
                let old = number - 100;
                index.remove((v4(old * 5), Some(u64::from(old) * 3))).unwrap();
            }
        }
        let header = index.header.unwrap();
        assert!(header.slots_log2 <= 10, "{header:?}");
        assert!(header.blocks_log2 <= 5, "{header:?}");
        for number in 19_900..20_000_u32 {
            assert_eq!(index.addresses(u64::from(number) * 3).unwrap(), [v4(number * 5)]);
        }
        assert_eq!(index.addresses(19_899 * 3).unwrap(), [] as [IpAddr; 0]);
    }

    /// How often `churn`, called with the number of each step, has the index rewritten.
    fn rewritings(index: &mut Index, steps: u32, mut churn: impl FnMut(&mut Index, u32)) -> u32 {
        let sealed = Stamp { seconds: 3, nanoseconds: 4 };
        let mut count = 0;
        for step in 0..steps {
            // Whatever rewrites the index breaks its seal.
            index.seal(sealed).unwrap();
            churn(index, step);
            count += u32::from(index.recorded() != Some((BOOT, sealed)));
        }
        count
    }

    #[test]
    fn however_full_the_tables_are_who_comes_and_goes_has_them_rewritten_seldom() {
        const STEPS: u32 = 100;
        let come_and_go = |index: &mut Index, entry: Entry| {
            index.insert(entry).unwrap();
            index.remove(entry).unwrap();
        };
        let scattered = |number: u32| u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Around the thresholds of small tables; and many leases in few blocks.
        let few = [0, 1, 2, 3, 31, 32, 33, 63, 64, 65];
        let levels = few.into_iter().flat_map(|leases| (1..=7).map(move |blocks| (leases, blocks)));
        for (leases, blocks) in levels.chain([(128, 1), (4096, 3), (5000, 2)]) {
            let entry = |number: u32| {
                let address = v4(((number % blocks) << BLOCK_LOG2) + number / blocks);
                (address, Some(scattered(number)))
            };
            let mut index = empty();
            if few.contains(&leases) {
                let fill = |index: &mut Index, number| index.insert(entry(number)).unwrap();
                let count = rewritings(&mut index, leases, fill);
                assert!(count <= 3, "{leases} in {blocks}: {count}");
            } else {
                index.rebuild(BOOT, &(0..leases).map(entry).collect::<Vec<_>>()).unwrap();
            }
            let mut check = |what: &str, room: u32, churn: &dyn Fn(&mut Index, u32)| {
                let count = rewritings(&mut index, STEPS, churn);
                // The first time is what happened before has brought about.
                let most = 1 + STEPS / room;
                assert!(count <= most, "{what}, {leases} in {blocks}: {count}, not {most}");
            };
            let (away, key) = (0x0b00_0000, 1);
            check("the same attachment", STEPS + 1, &|index, _| {
                come_and_go(index, (v4(away), Some(key)));
            });
            check("ever other ones in one block", leases.max(32), &|index, step| {
                come_and_go(index, (v4(away), Some(scattered(leases + step))));
            });
            let room = blocks.min(leases).max(leases / LEASES_OF_BLOCK as u32).max(2);
            check("one that moves from block to block", room, &|index, step| {
                come_and_go(index, (v4(away + (step << BLOCK_LOG2)), Some(key)));
            });
        }
    }

    proptest! {
        /// Damage may make the index wrong, which its users expect, but nothing worse.
        #[test]
        fn damage_is_survived(
            places in prop::collection::vec((0_usize..6000, any::<u8>()), 1..200),
            cut in 0_u64..8000,
        ) {
            let mut index = empty();
            for number in 0..40 {
                index.insert((v4(number), Some(number.into()))).unwrap();
            }
            for (at, byte) in places {
                // Behind the header, which has a checksum.
                index.file.write_all_at(&[byte], (HEADER_SIZE + at) as u64).unwrap();
            }
            index.seal(Stamp::default()).unwrap();
            if cut < 4000 {
                index.file.set_len(cut).unwrap();
            }
            if let Ok(mut index) = Index::open(index.file) {
                let _ = index.addresses(3);
                let _ = index.next_free(v4(0), 0, 1 << 20);
                let _ = index.insert((v4(77), Some(77)));
                let _ = index.remove((v4(3), Some(3)));
                let _ = index.entries();
            }
        }

        #[test]
        fn a_model_of_sets_agrees(
            steps in prop::collection::vec((any::<bool>(), 0_u32..300, 0_u64..40), 1..400),
        ) {
            let mut index = empty();
            let mut model = std::collections::BTreeMap::new();
            for (add, number, key) in steps {
                if add && !model.contains_key(&number) {
                    index.insert((v4(number), Some(key))).unwrap();
                    model.insert(number, key);
                } else if !add && let Some(key) = model.remove(&number) {
                    index.remove((v4(number), Some(key))).unwrap();
                }
            }
            for key in 0..40 {
                let mut found = index.addresses(key).unwrap();
                found.sort();
                let expected: Vec<_> =
                    model.iter().filter(|(_, k)| **k == key).map(|(n, _)| v4(*n)).collect();
                prop_assert_eq!(found, expected);
            }
            let free = (0..1000_u32).find(|n| !model.contains_key(n)).map(u128::from);
            prop_assert_eq!(index.next_free(v4(0), 0, 1000).unwrap(), free);
        }
    }
}
