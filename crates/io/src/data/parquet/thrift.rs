//! Thrift's compact protocol, as Parquet's footer and page headers are written in it: into a tree of values, and back.
//!
//! A tree grows only by what is really there: declared counts reserve nothing, depth and number of values are capped.

/// Deepest nesting; Parquet's own structures have less than ten levels.
const DEEPEST: usize = 24;

/// Most values of one structure: 4 million are a footer of 100,000 column chunks.
const MOST_VALUES: usize = 4_000_000;

/// A value. Read numbers of every width are one kind, as are lists and sets; readers check the width that is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    /// Written as an i64; never read.
    Long(i64),
    Double,
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Struct(Vec<(i16, Value)>),
}

/// Why bytes are no structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// They end too early: more of them may help.
    Short,
    /// They are something else.
    Malformed(&'static str),
}

impl Value {
    /// A field of a structure.
    pub(super) fn field(&self, id: i16) -> Option<&Value> {
        match self {
            Value::Struct(fields) => fields.iter().find(|(found, _)| *found == id).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A number in a field.
    pub(super) fn int(&self, id: i16) -> Option<i64> {
        match self.field(id) {
            Some(Value::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// A number that cannot be negative.
    pub(super) fn count(&self, id: i16) -> Option<u64> {
        self.int(id).and_then(|value| u64::try_from(value).ok())
    }

    /// Bytes in a field.
    pub(super) fn bytes(&self, id: i16) -> Option<&[u8]> {
        match self.field(id) {
            Some(Value::Bytes(value)) => Some(value),
            _ => None,
        }
    }

    /// A list in a field; one that is absent is empty.
    pub(super) fn list(&self, id: i16) -> &[Value] {
        match self.field(id) {
            Some(Value::List(values)) => values,
            _ => &[],
        }
    }
}

/// Reads one structure; gives it and the bytes it took.
pub(super) fn read(bytes: &[u8]) -> Result<(Value, usize), Defect> {
    let mut reader = Reader { bytes, at: 0, left: MOST_VALUES };
    let value = reader.structure(0)?;
    Ok((value, reader.at))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    left: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Defect> {
        let byte = *self.bytes.get(self.at).ok_or(Defect::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, Defect> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Defect::Malformed("a number of more than ten bytes"))
    }

    fn zigzag(&mut self) -> Result<i64, Defect> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn count_one(&mut self) -> Result<(), Defect> {
        self.left = self.left.checked_sub(1).ok_or(Defect::Malformed("more values than any real file has"))?;
        Ok(())
    }

    fn structure(&mut self, depth: usize) -> Result<Value, Defect> {
        let mut fields = Vec::new();
        let mut id: i16 = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(Value::Struct(fields));
            }
            id = match head >> 4 {
                0 => self.zigzag()? as i16,
                delta => id.wrapping_add(i16::from(delta)),
            };
            let value = match head & 15 {
                kind @ (1 | 2) => {
                    self.count_one()?;
                    Value::Bool(kind == 1)
                }
                kind => self.value(kind, depth + 1)?,
            };
            fields.push((id, value));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value, Defect> {
        if depth > DEEPEST {
            return Err(Defect::Malformed("structures nested too deep"));
        }
        self.count_one()?;
        Ok(match kind {
            1 | 2 => Value::Bool(self.byte()? == 1),
            3 => Value::Int(i64::from(self.byte()?.cast_signed())),
            4..=6 => Value::Int(self.zigzag()?),
            7 => {
                self.take(8)?;
                Value::Double
            }
            8 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?.to_vec())
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.element(head & 15, depth)?);
                }
                Value::List(values)
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                for _ in 0..count {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 15, depth)?;
                }
                Value::List(Vec::new()) // Parquet has no maps; they are only passed over
            }
            12 => self.structure(depth)?,
            _ => return Err(Defect::Malformed("a value of an unknown type")),
        })
    }

    fn element(&mut self, kind: u8, depth: usize) -> Result<Value, Defect> {
        self.value(kind, depth + 1)
    }

    fn take(&mut self, length: u64) -> Result<&[u8], Defect> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length)).ok_or(Defect::Short)?;
        let part = self.bytes.get(self.at..end).ok_or(Defect::Short)?;
        self.at = end;
        Ok(part)
    }
}

/// Writes a structure.
pub(super) fn write(value: &Value, out: &mut Vec<u8>) {
    let Value::Struct(fields) = value else { return };
    let mut last = 0;
    for (id, value) in fields {
        // Our own structures go up by fewer than sixteen.
        out.push(((id - last) as u8) << 4 | kind_of(value));
        last = *id;
        if !matches!(value, Value::Bool(_)) {
            write_value(value, out);
        }
    }
    out.push(0);
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Bool(true) => 1,
        Value::Bool(false) => 2,
        Value::Int(_) => 5,
        Value::Long(_) => 6,
        Value::Double => 7,
        Value::Bytes(_) => 8,
        Value::List(_) => 9,
        Value::Struct(_) => 12,
    }
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(value) => out.push(if *value { 1 } else { 2 }),
        Value::Int(value) | Value::Long(value) => write_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out),
        Value::Double => out.extend_from_slice(&[0; 8]),
        Value::Bytes(bytes) => {
            write_varint(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
        Value::List(values) => {
            let kind = values.first().map_or(12, kind_of);
            if values.len() < 15 {
                out.push((values.len() as u8) << 4 | kind);
            } else {
                out.push(0xF0 | kind);
                write_varint(values.len() as u64, out);
            }
            values.iter().for_each(|value| write_value(value, out));
        }
        Value::Struct(_) => write(value, out),
    }
}

pub(super) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
