//! What one process costs beside its system calls, exactly: its instructions in user space, counted by
//! stepping through it (ptrace(2)), page faults, and the memory that it has had at most.
//!
//! # Safety
//! ptrace(2) is called for a child of this thread that is stopped, and writes only into what it is given.

use std::io;
use std::process::Child;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::harness::Call;

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
    let call = call.clone().env("GLIBC_TUNABLES", PROCESSOR).before_exec(be_traced);
    // On one processor, the child's steps and ours follow each other several times as fast.
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut one = CpuSet::new();
    one.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    let child = call.start();
    let mut tracee = Tracee::of(&child);
    let page_faults = tracee.page_faults();
    tracee.run_to_main();
    let instructions = tracee.step_to_exit();
    let cost = Cost {
        instructions,
        page_faults: tracee.page_faults() - page_faults,
        peak_kib: tracee.peak_kib(),
    };
    tracee.go(libc::PTRACE_CONT);
    sched_setaffinity(Pid::from_raw(0), &all).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    cost
}

/// Has this process stop when it has become a program, at addresses that are not drawn at random.
fn be_traced() -> io::Result<()> {
    let persona = libc::ADDR_NO_RANDOMIZE.cast_unsigned();
    // SAFETY: it is a flag of this process alone.
    let outcome = unsafe { libc::personality(persona.into()) };
    if outcome == -1 {
        return Err(io::Error::last_os_error());
    }
    ptrace(libc::PTRACE_TRACEME, 0, 0, 0).map(drop)
}

/// A child that this thread steps through. It is stopped whenever nothing here runs.
struct Tracee(libc::pid_t);

/// Where a tracee has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// Before or after a system call.
    SystemCall,
    /// After one instruction, or exec.
    Trap,
    /// Somebody stops and continues what runs on this machine; it is not to notice.
    JobControl,
    /// About to be no more, with its memory still there.
    Exit,
}

impl Tracee {
    /// The child, which is about to be stopped by exec.
    fn of(child: &Child) -> Self {
        let tracee = Self(child.id().cast_signed());
        assert_eq!(tracee.wait(), Stop::Trap);
        let options =
            libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_EXITKILL;
        ptrace(libc::PTRACE_SETOPTIONS, tracee.0, 0, options.cast_unsigned() as usize).unwrap();
        tracee
    }

    fn go(&self, how: libc::c_uint) {
        ptrace(how, self.0, 0, 0).unwrap();
    }

    fn wait(&self) -> Stop {
        let mut status = 0;
        // SAFETY: the status is written to.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(waited, self.0, "{}", io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status), "it has ended: {status:#x}");
        match status >> 8 {
            libc::SIGTRAP => Stop::Trap,
            libc::SIGSTOP | libc::SIGCONT => Stop::JobControl,
            s if s == libc::SIGTRAP | 0x80 => Stop::SystemCall,
            s if s == libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8 => Stop::Exit,
            other => panic!("stopped by {other:#x}"),
        }
    }

    /// Runs it to the first system call of `main`.
    fn run_to_main(&mut self) {
        loop {
            self.go(libc::PTRACE_SYSCALL);
            match self.wait() {
                Stop::SystemCall => {}
                Stop::JobControl => continue,
                stop => panic!("{stop:?} before main"),
            }
            // SAFETY: numbers, for which all zeros are a valid value.
            let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
            let (size, place) = (size_of_val(&info), &raw mut info as usize);
            ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.0, size, place).unwrap();
            if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
                continue;
            }
            // SAFETY: the kernel says that it has filled in this member.
            let entry = unsafe { info.u.entry };
            if (entry.nr, entry.args[0]) == (libc::SYS_rt_sigaction as u64, libc::SIGPIPE as u64) {
                return;
            }
        }
    }

    /// Runs it to its end, one instruction at a time, and returns how many those were.
    fn step_to_exit(&mut self) -> u64 {
        let mut steps = 0;
        loop {
            self.go(libc::PTRACE_SINGLESTEP);
            match self.wait() {
                Stop::Trap => steps += 1,
                Stop::JobControl => {}
                // The last call was one, too.
                Stop::Exit => return steps + 1,
                Stop::SystemCall => panic!("a system call that is not asked for"),
            }
        }
    }

    /// `minflt` of proc_pid_stat(5).
    fn page_faults(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap();
        // The third field comes behind the name, which may hold anything.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(10 - 3).unwrap().parse().unwrap()
    }

    /// `VmHWM` of proc_pid_status(5).
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, address: usize, data: usize) -> io::Result<i64> {
    // SAFETY: as said at the top; where a request writes, `data` is the place and `address` its size.
    let outcome = unsafe { libc::ptrace(request, pid, address, data) };
    if outcome == -1 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}
