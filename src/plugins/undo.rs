//! The way back of a failed ADD.

use crate::cni::Error;

type Step<'a> = Box<dyn FnOnce() -> Result<(), Error> + 'a>;

/// What has to be done, last first, to leave the host as it was.
///
/// Steps open their own sockets: they are rarely taken, and then nothing of the failed work is to be
/// relied on.
#[derive(Default)]
pub struct Undo<'a>(Vec<Step<'a>>);

impl<'a> Undo<'a> {
    /// Nothing has been done yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes how to take back what has just been done.
    pub fn push(&mut self, step: impl FnOnce() -> Result<(), Error> + 'a) {
        self.0.push(Box::new(step));
    }

    /// Takes everything back because of `error`, which is returned, with what else went wrong.
    #[must_use]
    pub fn unwind(self, error: Error) -> Error {
        self.0.into_iter().rev().fold(error, |error, step| match step() {
            Ok(()) => error,
            Err(failure) => error.and(&failure),
        })
    }
}
