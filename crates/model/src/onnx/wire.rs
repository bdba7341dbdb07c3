//! ONNX's protobuf messages, as far as a graph needs them: `onnx.proto3`, release 1.16 (IR version 10).

/// Type of a tensor's elements (`TensorProto.DataType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementType {
    Float = 1,
    Int64 = 7,
    Float16 = 10,
    Bfloat16 = 16,
}

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(pub(super) Vec<u8>);

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a varint.
pub(super) fn varint_length(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

impl Message {
    pub(super) fn int(mut self, field: u32, value: i64) -> Self {
        varint(&mut self.0, u64::from(field << 3));
        // Negative numbers take ten bytes, as protobuf has it.
        varint(&mut self.0, value as u64);
        self
    }

    pub(super) fn float(mut self, field: u32, value: f32) -> Self {
        varint(&mut self.0, u64::from(field << 3 | 5));
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self = self.begin(field, value.len() as u64);
        self.0.extend(value);
        self
    }

    pub(super) fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub(super) fn message(self, field: u32, value: Message) -> Self {
        self.bytes(field, &value.0)
    }

    /// The tag and length of a field whose bytes are written elsewhere.
    pub(super) fn begin(mut self, field: u32, length: u64) -> Self {
        varint(&mut self.0, u64::from(field << 3 | 2));
        varint(&mut self.0, length);
        self
    }
}

/// An attribute of a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attribute<'a> {
    Int(&'a str, i64),
    Float(&'a str, f32),
    Text(&'a str, &'a str),
    Ints(&'a str, &'a [i64]),
}

impl Attribute<'_> {
    fn message(self) -> Message {
        let named = |name: &str, kind: i64| Message::default().text(1, name).int(20, kind);
        match self {
            Attribute::Float(name, value) => named(name, 1).float(2, value),
            Attribute::Int(name, value) => named(name, 2).int(3, value),
            Attribute::Text(name, value) => named(name, 3).text(4, value),
            Attribute::Ints(name, values) => values.iter().fold(named(name, 7), |all, value| all.int(8, *value)),
        }
    }
}

/// `NodeProto`.
pub(super) fn node(kind: &str, inputs: &[&str], output: &str, attributes: &[Attribute]) -> Message {
    let message = inputs.iter().fold(Message::default(), |all, input| all.text(1, input));
    let message = message.text(2, output).text(3, output).text(4, kind);
    attributes.iter().fold(message, |all, attribute| all.message(5, attribute.message()))
}

/// A size of an input or output: fixed, or a name for one that is chosen by the caller.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size<'a> {
    Fixed(usize),
    Named(&'a str),
}

/// `ValueInfoProto` of a tensor.
pub(super) fn value_info(name: &str, kind: ElementType, shape: &[Size]) -> Message {
    let shape = shape.iter().fold(Message::default(), |all, size| {
        let size = match size {
            Size::Fixed(size) => Message::default().int(1, *size as i64),
            Size::Named(name) => Message::default().text(2, name),
        };
        all.message(1, size)
    });
    let tensor = Message::default().int(1, kind as i64).message(2, shape);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

/// `StringStringEntryProto`.
pub(super) fn entry(key: &str, value: &str) -> Message {
    Message::default().text(1, key).text(2, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_protobufs() {
        // The examples of protobuf's encoding guide.
        assert_eq!(Message::default().int(1, 150).0, [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").0, *b"\x12\x07testing");
        assert_eq!(Message::default().int(1, -2).0.len(), 11);
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            let mut bytes = Vec::new();
            varint(&mut bytes, value);
            assert_eq!(varint_length(value), bytes.len() as u64, "{value}");
        }
    }
}
