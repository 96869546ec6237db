//! What the program is as a file: static, not relocated, small.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

const PLUMB: &str = env!("CARGO_BIN_EXE_plumb");

/// Program header and section types (elf(5)).
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const SHT_RELA: u32 = 4;
/// `R_X86_64_IRELATIVE`, and the same of aarch64: the C library chooses its string functions by CPU.
const IRELATIVE: [u32; 2] = [37, 1032];
/// Size of `Elf64_Rela`.
const RELA: usize = 24;

struct Elf(Vec<u8>);

impl Elf {
    fn number<const N: usize>(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.0[at..at + N]);
        u64::from_le_bytes(bytes)
    }

    fn at(&self, at: usize) -> usize {
        usize::try_from(self.number::<8>(at)).unwrap()
    }

    /// Offsets of the entries of a table whose place, entry size and count stand at these offsets.
    fn table(&self, place: usize, size: usize, count: usize) -> Vec<usize> {
        let [size, count] = [size, count].map(|at| usize::try_from(self.number::<2>(at)).unwrap());
        (0..count).map(|index| self.at(place) + index * size).collect()
    }

    fn segment_types(&self) -> Vec<u64> {
        self.table(0x20, 0x36, 0x38).into_iter().map(|at| self.number::<4>(at)).collect()
    }

    fn relocation_types(&self) -> Vec<u64> {
        let sections = self.table(0x28, 0x3a, 0x3c).into_iter();
        let relocations = sections.filter(|at| self.number::<4>(at + 4) == u64::from(SHT_RELA));
        relocations
            .flat_map(|at| {
                let (place, size) = (self.at(at + 0x18), self.at(at + 0x20));
                (place..place + size).step_by(RELA).map(|at| self.number::<4>(at + 8))
            })
            .collect()
    }
}

#[test]
fn no_loader_and_no_relocations_stand_between_exec_and_main() {
    let elf = Elf(std::fs::read(PLUMB).unwrap());
    assert_eq!(&elf.0[..6], b"\x7fELF\x02\x01", "64 bit, little endian");
    let segments = elf.segment_types();
    assert!(!segments.is_empty());
    for kind in [PT_DYNAMIC, PT_INTERP] {
        assert!(!segments.contains(&u64::from(kind)), "segment of type {kind}: {segments:?}");
    }
    let others: Vec<_> = elf
        .relocation_types()
        .into_iter()
        .filter(|kind| !IRELATIVE.iter().any(|known| u64::from(*known) == *kind))
        .collect();
    assert_eq!(others, [] as [u64; 0]);
    assert!(elf.relocation_types().len() < 64);
}

#[cfg(not(debug_assertions))]
#[test]
fn the_program_has_at_most_4_mib() {
    let size = std::fs::metadata(PLUMB).unwrap().len();
    assert!(size <= 4 << 20, "{size} bytes");
}
