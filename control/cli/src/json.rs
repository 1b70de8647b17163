//! JSON in the two layouts of the tipc tool.
//!
//! Reference: `docs/protocol/management.md`.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

/// The document on one line without spaces, or indented; with a newline at its end.
pub(crate) fn render(value: &impl Serialize, pretty: bool) -> serde_json::Result<String> {
    let mut text = Vec::new();
    if pretty {
        value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut text,
            Indented::default(),
        ))?;
    } else {
        serde_json::to_writer(&mut text, value)?;
    }
    text.push(b'\n');
    Ok(String::from_utf8(text).expect("serde_json writes UTF-8"))
}

/// A JSON object whose keys are known only at run time, in this order.
pub(crate) struct Fields<K, V>(pub(crate) Vec<(K, V)>);

impl<K: Serialize, V: Serialize> Serialize for Fields<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// iproute2's layout: objects indent their keys by four, arrays stay on their line with a blank inside each bracket.
#[derive(Default)]
struct Indented {
    depth: usize,
    has_content: bool,
}

impl Indented {
    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        write!(out, "\n{:width$}", "", width = 4 * self.depth)
    }
}

impl Formatter for Indented {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        self.has_content = false;
        out.write_all(b"[ ")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        out.write_all(if self.has_content { b" ]" } else { b"]" })
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_content = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        self.has_content = false;
        out.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        if self.has_content {
            self.new_line(out)?;
        }
        out.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        self.new_line(out)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_content = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_indented_layout_is_that_of_iproute2() {
        let value = json!([{"a": "x", "b": ["U", "D"], "c": {"d": 1}, "e": [], "f": {}}, {"a": 2}]);
        let expected = r#"[ {
        "a": "x",
        "b": [ "U","D" ],
        "c": {
            "d": 1
        },
        "e": [ ],
        "f": {}
    },{
        "a": 2
    } ]
"#;
        assert_eq!(render(&value, true).expect("text"), expected);
        assert_eq!(render(&json!([]), true).expect("text"), "[ ]\n");
    }

    #[test]
    fn the_plain_layout_is_one_line_and_fields_keep_their_order() {
        let fields = [Fields(vec![("z", 1), ("a", 2)])];
        assert_eq!(
            render(&fields, false).expect("text"),
            "[{\"z\":1,\"a\":2}]\n"
        );
    }
}
