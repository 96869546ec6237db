//! Prints JSON as the reference does: four spaces of indentation, keys in the order in which they are
//! given, the escapes of Go's `encoding/json`, no final newline.

/// Writes one JSON document.
#[derive(Debug)]
pub struct Printer {
    out: String,
    depth: usize,
    /// Something stands before the next key or item, so a comma is due.
    follows: bool,
}

impl Default for Printer {
    fn default() -> Self {
        Self::new()
    }
}

impl Printer {
    /// An empty document.
    #[must_use]
    pub fn new() -> Self {
        Self { out: String::with_capacity(1024), depth: 0, follows: false }
    }

    /// An object, whose members `body` writes.
    pub fn object(&mut self, body: impl FnOnce(&mut Self)) {
        self.container('{', '}', body);
    }

    /// A list, whose items `body` writes, each after [`item`](Self::item).
    pub fn list(&mut self, body: impl FnOnce(&mut Self)) {
        self.container('[', ']', body);
    }

    /// A list of one item each for `items`.
    pub fn list_of<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.list(|p| {
            for item in items {
                each(p.item(), item);
            }
        });
    }

    /// Begins a member of an object; its value follows.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.item();
        self.string(name);
        self.out.push_str(": ");
        self
    }

    /// Begins an item of a list; its value follows.
    pub fn item(&mut self) -> &mut Self {
        if self.follows {
            self.out.push(',');
        }
        self.follows = true;
        self.new_line();
        self
    }

    /// A string.
    pub fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    self.out.push_str(&format!("\\u{:04x}", u32::from(c)));
                }
                _ => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    /// A number.
    pub fn number(&mut self, value: impl Into<u64>) {
        self.out.push_str(&value.into().to_string());
    }

    /// The document.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    fn container(&mut self, open: char, close: char, body: impl FnOnce(&mut Self)) {
        self.out.push(open);
        self.depth += 1;
        self.follows = false;
        body(self);
        self.depth -= 1;
        if self.follows {
            self.new_line();
        }
        self.out.push(close);
        self.follows = true;
    }

    fn new_line(&mut self) {
        self.out.push('\n');
        for _ in 0..self.depth {
            self.out.push_str("    ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_look_as_the_references() {
        let mut printer = Printer::new();
        printer.object(|p| {
            p.key("code").number(7_u32);
            p.key("empty").object(|_| ());
            p.key("list").list_of(["a<b>&", "\u{1}\n"], |p, text| p.string(text));
            p.key("none").list(|_| ());
        });
        let expected = r#"{
    "code": 7,
    "empty": {},
    "list": [
        "a\u003cb\u003e\u0026",
        "\u0001\n"
    ],
    "none": []
}"#;
        assert_eq!(printer.finish(), expected);
    }
}
