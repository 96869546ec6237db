//! The way back of a failed ADD.

use crate::cni::Error;

type Step<'a> = Box<dyn FnOnce() -> Result<(), Error> + 'a>;

/// What has to be done, last first, to leave the host as it was.
///
/// Steps open their own sockets: they are rarely taken, and then nothing of the failed work is to be
/// relied on. One may be noted before it is known whether its work was done, so it must bear with
/// finding nothing.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Step<'a>>,
    last: Vec<Step<'a>>,
}

impl<'a> Undo<'a> {
    /// Nothing has been done yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes how to take back what has just been done.
    pub fn push(&mut self, step: impl FnOnce() -> Result<(), Error> + 'a) {
        self.steps.push(Box::new(step));
    }

    /// Notes how to take back what all else depends on. It stays if anything else does: an address that
    /// may still be in use keeps its lease, by which DEL finds the rest.
    pub fn push_last(&mut self, step: impl FnOnce() -> Result<(), Error> + 'a) {
        self.last.push(Box::new(step));
    }

    /// Takes everything back because of `error`, which is returned, with what else went wrong.
    #[must_use]
    pub fn unwind(self, error: Error) -> Error {
        let mut complete = true;
        let mut error = error;
        for step in self.steps.into_iter().rev() {
            if let Err(failure) = step() {
                complete = false;
                error = error.and(&failure);
            }
        }
        if complete {
            for step in self.last.into_iter().rev() {
                if let Err(failure) = step() {
                    error = error.and(&failure);
                }
            }
        }
        error
    }
}
