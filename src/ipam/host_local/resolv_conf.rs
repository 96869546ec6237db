//! Reads the name resolution of a container from a file in the format of resolv.conf(5).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use crate::cni::Error;
use crate::cni::result::Dns;
use crate::trace;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 << 10;

/// Reads `nameserver`, `domain`, `search` and `options` from the file at `path`.
///
/// # Errors
/// The file can't be read, or is none that holds text.
pub fn read(path: &str) -> Result<Dns, Error> {
    let text = read_file(path);
    trace::file("read", path, &text);
    let text = text.map_err(|why| Error::io(format_args!("read ipam.resolvConf {path:?}"), why))?;
    Ok(parse(&text))
}

/// Whatever the path leads to, it is neither waited for nor read without end.
fn read_file(path: &str) -> io::Result<String> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it has more than {LARGEST} bytes")));
    }
    Ok(text)
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut fields = line.split_whitespace().map(str::to_owned);
        match fields.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(fields.next()),
            Some("domain") => dns.domain = fields.next().unwrap_or_default(),
            Some("search") => dns.search.extend(fields),
            Some("options") => dns.options.extend(fields),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_keywords_are_read_and_comments_skipped() {
        let text = "# nameserver 9.9.9.9\n; x\nnameserver 10.0.0.1\nnameserver\tfd00::1\n\
                    domain example.org\nsearch a.example b.example\noptions ndots:5 edns0\nsortlist x\n";
        let expected = Dns {
            nameservers: vec!["10.0.0.1".into(), "fd00::1".into()],
            domain: "example.org".into(),
            search: vec!["a.example".into(), "b.example".into()],
            options: vec!["ndots:5".into(), "edns0".into()],
        };
        assert_eq!(parse(text), expected);
    }
}
