//! What one process costs beside its system calls, exactly: its instructions in user space, counted by
//! stepping through it (ptrace(2)), page faults, and the memory that it has had at most.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::harness::{Call, Stop, Tracee};

/// What a process has cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Instructions in user space, from the first system call of `main` on; a system call is one.
    pub instructions: u64,
    /// Page faults since exec that no disk was read for.
    pub page_faults: u64,
    /// Peak of the resident memory, in KiB, of the program that was executed: what wait4(2) tells counts
    /// that of the process that it was forked from.
    pub peak_kib: u64,
}

/// The C library's string functions differ from processor to processor. Without these features all take
/// those of the oldest; and none repeats an instruction, which would be a step each time.
const PROCESSOR: &str = "glibc.cpu.hwcaps=-AVX512VL,-AVX512F,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-BMI2,\
                         -SSSE3,-SSE4_1,-SSE4_2,-ERMS,-FSRM";

/// Runs a call to its end, which must be good.
pub fn cost(call: &Call<'_>) -> Cost {
    let call = call.clone().env("GLIBC_TUNABLES", PROCESSOR);
    // On one processor, the child's steps and ours follow each other several times as fast.
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut one = CpuSet::new();
    one.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    let (child, tracee) = Tracee::start(&call);
    let page_faults = tracee.page_faults();
    tracee.run_to_main();
    let instructions = steps_to_exit(&tracee);
    let cost = Cost {
        instructions,
        page_faults: tracee.page_faults() - page_faults,
        peak_kib: tracee.peak_kib(),
    };
    tracee.release();
    sched_setaffinity(Pid::from_raw(0), &all).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    cost
}

/// Runs it to its end, one instruction at a time, and returns how many those were.
fn steps_to_exit(tracee: &Tracee) -> u64 {
    let mut steps = 0;
    loop {
        match tracee.go(libc::PTRACE_SINGLESTEP) {
            Stop::Trap => steps += 1,
            // The last call was one, too.
            Stop::Exit => return steps + 1,
            stop => panic!("{stop:?}, which is not asked for"),
        }
    }
}
