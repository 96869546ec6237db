//! A process that is stopped as it goes (ptrace(2)), and whose memory is read and written meanwhile.
//!
//! # Safety
//! ptrace(2) is called for a child of this thread that is stopped, and writes only into what it is given.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::call::Call;

/// A child that this thread stops and lets go.
pub struct Tracee {
    pid: libc::pid_t,
    memory: File,
}

/// Where a tracee has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Before a system call.
    Entry(Entry),
    /// After one, with what it returns: below zero for an error.
    Return(i64),
    /// After one instruction, or exec.
    Trap,
    /// A signal is about to be delivered.
    Signal(libc::c_int),
    /// About to be no more, with its memory still there.
    Exit,
    /// No more: its status is to be waited for.
    Gone,
}

/// A system call and its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub number: i64,
    pub arguments: [u64; 6],
}

impl Tracee {
    /// Starts a call, whose process is stopped when it has become the plugin.
    pub fn start(call: &Call<'_>) -> (Child, Self) {
        let child = call.clone().before_exec(be_traced).start();
        let pid = child.id().cast_signed();
        let mut status = 0;
        // SAFETY: the status is written to.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(waited, pid, "{}", io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status), "it has ended: {status:#x}");
        let options =
            libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_EXITKILL;
        ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options.cast_unsigned() as usize).unwrap();
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"));
        (child, Self { pid, memory: memory.unwrap() })
    }

    /// Lets it go on in one of the ways of ptrace(2), to its next stop. Whether somebody stops and continues
    /// what runs on this machine it does not notice; other signals it gets.
    pub fn go(&self, how: libc::c_uint) -> Stop {
        let mut signal = 0;
        loop {
            ptrace(how, self.pid, 0, signal).unwrap();
            match self.wait() {
                Stop::Signal(libc::SIGSTOP | libc::SIGCONT) => signal = 0,
                Stop::Signal(other) => signal = other.cast_unsigned() as usize,
                stop => return stop,
            }
        }
    }

    /// Lets it go for good.
    pub fn release(self) {
        ptrace(libc::PTRACE_DETACH, self.pid, 0, 0).unwrap();
    }

    /// Kills it where it is.
    pub fn kill(self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
        // Even so it stops on its way out.
        if self.wait() == Stop::Exit {
            self.release();
        }
    }

    fn wait(&self) -> Stop {
        // SAFETY: numbers, for which all zeros are a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = self.pid.cast_unsigned();
        // A process that has ended is left for who has started it.
        let options = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT;
        // SAFETY: the information is written to.
        let outcome = unsafe { libc::waitid(libc::P_PID, id, &raw mut info, options) };
        assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
        if info.si_code != libc::CLD_TRAPPED && info.si_code != libc::CLD_STOPPED {
            return Stop::Gone;
        }
        // SAFETY: as above; what it tells of the stop is known, and now taken away.
        let outcome =
            unsafe { libc::waitid(libc::P_PID, id, &raw mut info, libc::WSTOPPED | libc::WNOHANG) };
        assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
        // SAFETY: waitid(2) has filled it in; before, in vain, it was the same process's.
        match unsafe { info.si_status() } {
            libc::SIGTRAP => Stop::Trap,
            s if s == libc::SIGTRAP | 0x80 => self.system_call(),
            s if s == libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8 => Stop::Exit,
            signal => Stop::Signal(signal),
        }
    }

    fn system_call(&self) -> Stop {
        // SAFETY: numbers, for which all zeros are a valid value.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let (size, place) = (size_of_val(&info), &raw mut info as usize);
        match ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid, size, place) {
            Ok(_) => {}
            // Killed while it was stopped.
            Err(why) if why.raw_os_error() == Some(libc::ESRCH) => return self.wait(),
            Err(why) => panic!("{why}"),
        }
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: the kernel says that it has filled in this member.
            let entry = unsafe { info.u.entry };
            return Stop::Entry(Entry { number: entry.nr.cast_signed(), arguments: entry.args });
        }
        assert_eq!(info.op, libc::PTRACE_SYSCALL_INFO_EXIT);
        // SAFETY: as above.
        Stop::Return(unsafe { info.u.exit }.sval)
    }

    /// Runs it to the first system call of `main`, by whose entry it is stopped.
    pub fn run_to_main(&self) {
        loop {
            match self.go(libc::PTRACE_SYSCALL) {
                Stop::Entry(entry) if entry.is_first_of_main() => return,
                Stop::Entry(_) | Stop::Return(_) => {}
                stop => panic!("{stop:?} before main"),
            }
        }
    }

    /// Before a system call: it is not made, and returns nothing of use. See [`set_result`](Self::set_result).
    pub fn skip_call(&self) {
        self.change_registers(|registers| registers.orig_rax = u64::MAX);
    }

    /// After a system call: what it returns.
    pub fn set_result(&self, result: i64) {
        self.change_registers(|registers| registers.rax = result.cast_unsigned());
    }

    fn change_registers(&self, change: impl FnOnce(&mut libc::user_regs_struct)) {
        // SAFETY: numbers, for which all zeros are a valid value.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let place = &raw mut registers as usize;
        ptrace(libc::PTRACE_GETREGS, self.pid, 0, place).unwrap();
        change(&mut registers);
        ptrace(libc::PTRACE_SETREGS, self.pid, 0, place).unwrap();
    }

    /// Its memory from `address` on.
    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_exact_at(&mut bytes, address).unwrap();
        bytes
    }

    /// The number at `address`.
    pub fn read_u64(&self, address: u64) -> u64 {
        u64::from_ne_bytes(self.read(address, 8).try_into().unwrap())
    }

    /// The string at `address`.
    pub fn read_string(&self, address: u64) -> String {
        let mut bytes = [0; 4096];
        // To the end of what is mapped.
        let length = self.memory.read_at(&mut bytes, address).unwrap();
        let end = bytes[..length].iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    /// Overwrites its memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, address).unwrap();
    }

    /// What a descriptor is open for, as proc_pid_fd(5) tells it.
    pub fn file(&self, descriptor: u64) -> String {
        let link = std::fs::read_link(format!("/proc/{}/fd/{descriptor}", self.pid));
        link.map_or_else(|why| why.to_string(), |path| path.to_string_lossy().into_owned())
    }

    /// `minflt` of proc_pid_stat(5).
    pub fn page_faults(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // The third field comes behind the name, which may hold anything.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(10 - 3).unwrap().parse().unwrap()
    }

    /// `VmHWM` of proc_pid_status(5).
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Entry {
    /// Rust's runtime has SIGPIPE ignored before it calls `main`.
    fn is_first_of_main(&self) -> bool {
        (self.number, self.arguments[0]) == (libc::SYS_rt_sigaction, libc::SIGPIPE as u64)
    }
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

fn ptrace(request: libc::c_uint, pid: libc::pid_t, address: usize, data: usize) -> io::Result<i64> {
    // SAFETY: as said at the top; where a request writes, `data` is the place and `address` its size, or what
    // the request is for.
    let outcome = unsafe { libc::ptrace(request, pid, address, data) };
    if outcome == -1 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}
