//! What can be asked of the kernel.

use std::fmt::Display;

use nix::errno::Errno;

use super::wire::{Encoder, Flags, Malformed, Message};

/// One operation of the kernel's, as a typed value.
///
/// Its `Display` is its purpose, as a phrase that follows "cannot": `create bridge "cni0"`. It is only
/// made when something goes wrong.
pub trait Request: Display {
    /// `nlmsg_type`.
    fn kind(&self) -> u16;

    /// `nlmsg_flags` beyond `NLM_F_REQUEST`.
    fn flags(&self) -> Flags {
        Flags::empty()
    }

    /// Writes the family header and the attributes.
    fn body(&self, out: &mut Encoder);

    /// Whether the request has reached its aim although the kernel answers with `errno`.
    fn tolerates(&self, errno: Errno) -> bool {
        let _ = errno;
        false
    }
}

/// A request that is answered by an object, or in a dump by many.
pub trait Query: Request {
    /// The object.
    type Reply;

    /// Reads the object.
    ///
    /// # Errors
    /// The message does not keep to the format.
    fn decode(&self, message: &Message<'_>) -> Result<Self::Reply, Malformed>;

    /// Reads the objects that one message of a dump holds: one, unless the kind says otherwise, and
    /// none if the message is not of the kind that was asked for.
    ///
    /// # Errors
    /// The message does not keep to the format.
    fn decode_item(&self, message: &Message<'_>) -> Result<Vec<Self::Reply>, Malformed> {
        self.decode(message).map(|object| vec![object])
    }
}
