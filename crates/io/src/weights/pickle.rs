//! A pickle machine that builds plain containers and descriptions of tensors, and nothing else.
//!
//! A pickle is a program: its opcodes name Python objects and call them. Here the names are looked up in a short list
//! ([`Known`]); each stands for something built here, and there is no way from a file to any other code. What is not on
//! the list is refused with its name. Values live in an arena and refer to each other by number, so a list that holds
//! itself or is nested a million deep costs nothing to build and to drop.
//!
//! Source of the opcodes: Python's `pickletools`; of torch's use of them: `torch/serialization.py`, `torch/_utils.py`.

use super::dtype::DType;
use super::error::{Foreign, PickleError, WeightsError};
use super::pickle_input::{Input, Span};
use super::source::Source;

/// Longest pickle. That of a checkpoint takes about 200 bytes a tensor; real ones stay under 1 MB.
pub(super) const MAX_PICKLE: usize = 128 << 20;
/// Largest memo index.
pub(super) const MAX_MEMO: u64 = 1_000_000;
/// Most values on the stack, most containers, and most items in all containers together. They bound the memory that a
/// pickle of one-byte opcodes can ask for: about 16, 300 and 32 bytes each. A tensor of torch takes 7 containers.
const MAX_STACK: usize = 1_000_000;
const MAX_NODES: usize = 1_000_000;
const MAX_ITEMS: usize = 8_000_000;
/// Most names of globals.
const MAX_NAMES: usize = 100_000;
/// Most dimensions of a tensor.
const MAX_RANK: usize = super::MAX_RANK;

/// A value on the stack or in a container.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Span),
    /// A container or a tensor: its number in the arena.
    Node(u32),
    Global(Known),
    /// Something harmless whose content weights do not need: bytes, a long integer, a device, a NumPy scalar.
    Opaque,
}

/// The globals that a file of weights may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    Storage(DType),
    Size,
    /// A class compiled by TorchScript (`__torch__.*`): a bag of attributes. The number is its name's.
    ScriptClass(u32),
    /// Named in training files, never needed: calls give [`Value::Opaque`]. The number is its name's.
    Inert(u32),
}

/// A container in the arena.
#[derive(Debug)]
pub(super) enum Node {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A TorchScript object and its attributes.
    Object(Vec<(Value, Value)>),
    Storage(Storage),
    Tensor(Box<Tensor>),
}

/// A storage as a persistent id names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    pub(super) dtype: DType,
    pub(super) key: Span,
    /// Declared number of elements.
    pub(super) elements: i64,
}

/// A tensor as its constructor call describes it; nothing is checked but the types.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    /// In elements.
    pub(super) offset: i64,
    pub(super) shape: Vec<i64>,
    /// In elements.
    pub(super) strides: Vec<i64>,
}

/// A pickle that ran to its end.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) top: Value,
    /// All its bytes and perhaps some after it; texts are spans of them.
    pub(super) bytes: Vec<u8>,
    /// Offset in the file of the byte after the last opcode.
    pub(super) end: u64,
}

impl Pickle {
    /// Runs the pickle that begins at `start` and ends before `end`.
    pub(super) fn read(source: &Source, start: u64, end: u64) -> Result<Pickle, WeightsError> {
        let mut machine = Machine {
            input: Input::new(source, start, end),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            nodes: Vec::new(),
            names: Vec::new(),
            items: 0,
        };
        while machine.step()? {}
        let top = machine.pop()?;
        let end = machine.input.offset();
        Ok(Pickle { nodes: machine.nodes, top, bytes: machine.input.into_bytes(), end })
    }

    /// The text of a value, if it is one and UTF-8.
    pub(super) fn text(&self, value: Value) -> Option<&str> {
        match value {
            Value::Text(span) => std::str::from_utf8(span.of(&self.bytes)).ok(),
            _ => None,
        }
    }

    /// The container of a value.
    pub(super) fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(number) => self.nodes.get(number as usize),
            _ => None,
        }
    }
}

type Step<T = ()> = Result<T, WeightsError>;

struct Machine<'a> {
    input: Input<'a>,
    stack: Vec<Value>,
    /// Stack heights at the MARK opcodes not yet consumed.
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    nodes: Vec<Node>,
    names: Vec<Foreign>,
    /// Items in all containers together.
    items: usize,
}

impl Machine<'_> {
    /// One opcode; false after STOP.
    fn step(&mut self) -> Step<bool> {
        let offset = self.input.offset();
        let [opcode] = self.input.array()?;
        match opcode {
            0x80 => self.protocol()?,
            0x95 => drop(self.input.array::<8>()?), // FRAME: only a hint for buffering
            b'.' => return Ok(false),
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' | b'M' | b'J' | 0x8a | 0x8b | b'G' => self.number(opcode)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' | 0x8e => self.counted_text(opcode)?,
            b'S' | b'V' | b'I' | b'L' | b'F' => self.text_line()?,
            b'(' => self.mark()?,
            b')' => self.push_node(Node::Tuple(Vec::new()))?,
            b']' => self.push_node(Node::List(Vec::new()))?,
            b'}' => self.push_node(Node::Dict(Vec::new()))?,
            0x85..=0x87 => self.small_tuple(usize::from(opcode) - 0x84)?,
            b't' | b'l' | b'd' => self.marked_container(opcode)?,
            b'a' => self.append(1)?,
            b'e' => self.append_marked()?,
            b's' => self.set_items(2)?,
            b'u' => self.set_marked()?,
            b'q' | b'r' | 0x94 | b'p' => self.put(opcode)?,
            b'h' | b'j' | b'g' => self.get(opcode)?,
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.duplicate()?,
            b'c' => self.global()?,
            0x93 => self.stack_global()?,
            b'i' => self.instance()?,
            b'R' => self.reduce()?,
            0x81 => self.new_object()?,
            b'o' => self.marked_object()?,
            b'b' => self.build()?,
            b'Q' => self.persistent_id()?,
            0x82 => self.extension(1)?,
            0x83 => self.extension(2)?,
            0x84 => self.extension(4)?,
            _ => return Err(self.input.error(refusal(opcode, offset))),
        }
        Ok(true)
    }

    fn protocol(&mut self) -> Step {
        match self.input.array()? {
            [0..=5] => Ok(()),
            [version] => Err(self.input.error(PickleError::Protocol { version })),
        }
    }

    // Values

    fn push(&mut self, value: Value) -> Step {
        if self.stack.len() >= MAX_STACK {
            return Err(self.input.error(PickleError::TooMany { what: "values at once", limit: MAX_STACK }));
        }
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Step {
        if self.nodes.len() >= MAX_NODES {
            return Err(self.input.error(PickleError::TooMany { what: "containers", limit: MAX_NODES }));
        }
        let number = self.nodes.len() as u32;
        self.nodes.push(node);
        self.push(Value::Node(number))
    }

    /// To be called before `count` items go into a container.
    fn count_items(&mut self, count: usize) -> Step {
        self.items = self.items.saturating_add(count);
        if self.items > MAX_ITEMS {
            return Err(self.input.error(PickleError::TooMany { what: "items", limit: MAX_ITEMS }));
        }
        Ok(())
    }

    fn pop(&mut self) -> Step<Value> {
        // Values below a mark belong to whoever set the mark.
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(value) if self.stack.len() >= floor => Ok(value),
            _ => Err(self.underflow()),
        }
    }

    fn underflow(&self) -> WeightsError {
        self.input.error(PickleError::StackUnderflow { offset: self.input.offset() })
    }

    fn wrong(&self, expected: &'static str) -> WeightsError {
        self.input.error(PickleError::WrongType { expected, offset: self.input.offset() })
    }

    fn duplicate(&mut self) -> Step {
        let top = self.stack.last().copied().ok_or_else(|| self.underflow())?;
        self.push(top)
    }

    fn mark(&mut self) -> Step {
        if self.marks.len() >= MAX_STACK {
            return Err(self.input.error(PickleError::TooMany { what: "marks", limit: MAX_STACK }));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// The values above the last mark.
    fn pop_mark(&mut self) -> Step<Vec<Value>> {
        let at = self.marks.pop().filter(|at| *at <= self.stack.len()).ok_or_else(|| self.underflow())?;
        Ok(self.take_from(at))
    }

    /// The values from `at` on. Not `split_off`: at 0 that hands over the stack's whole capacity with them.
    fn take_from(&mut self, at: usize) -> Vec<Value> {
        self.stack.drain(at..).collect()
    }

    // Numbers and texts

    fn number(&mut self, opcode: u8) -> Step {
        let value = match opcode {
            b'K' => Value::Int(i64::from(self.input.array::<1>()?[0])),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.input.array()?))),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.input.array()?))),
            b'G' => Value::Float(f64::from_be_bytes(self.input.array()?)),
            0x8a => {
                let len = u64::from(self.input.array::<1>()?[0]);
                self.long(len)?
            }
            _ => {
                let len = i32::from_le_bytes(self.input.array()?);
                let bad = PickleError::BadNumber { offset: self.input.offset() };
                let len = u64::try_from(len).map_err(|_| self.input.error(bad))?;
                self.long(len)?
            }
        };
        self.push(value)
    }

    /// A two's complement integer of `len` bytes; beyond 8 bytes its value cannot matter to us.
    fn long(&mut self, len: u64) -> Step<Value> {
        let span = self.input.take(len)?;
        let bytes = self.input.get(span);
        if bytes.len() > 8 {
            return Ok(Value::Opaque);
        }
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [sign; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn counted_text(&mut self, opcode: u8) -> Step {
        let len = match opcode {
            0x8c | b'U' | b'C' => u64::from(self.input.array::<1>()?[0]),
            b'X' | b'T' | b'B' => u64::from(u32::from_le_bytes(self.input.array()?)),
            _ => u64::from_le_bytes(self.input.array()?),
        };
        let span = self.input.take(len)?;
        if matches!(opcode, b'B' | b'C' | 0x8e) {
            return self.push(Value::Opaque);
        }
        match self.input.text(span) {
            Ok(_) => self.push(Value::Text(span)),
            // Python 2 wrote bytes as texts.
            Err(_) if matches!(opcode, b'U' | b'T') => self.push(Value::Opaque),
            Err(error) => Err(error),
        }
    }

    /// Protocol 0 texts and numbers: torch never writes them. They are read so that a hostile file gets as far as the
    /// name of what it wants to call; their value is not used.
    fn text_line(&mut self) -> Step {
        self.input.line()?;
        self.push(Value::Opaque)
    }

    // Containers

    fn small_tuple(&mut self, len: usize) -> Step {
        self.count_items(len)?;
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push_node(Node::Tuple(items))
    }

    /// TUPLE, LIST and DICT: everything since the mark.
    fn marked_container(&mut self, opcode: u8) -> Step {
        let items = self.pop_mark()?;
        self.count_items(items.len())?;
        let node = match opcode {
            b't' => Node::Tuple(items),
            b'l' => Node::List(items),
            _ => Node::Dict(self.pairs(&items)?),
        };
        self.push_node(node)
    }

    fn pairs(&self, items: &[Value]) -> Step<Vec<(Value, Value)>> {
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(self.wrong("an even number of keys and values"));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    fn append_marked(&mut self) -> Step {
        let items = self.pop_mark()?;
        let count = items.len();
        // Back on the stack, above the list.
        self.stack.extend(items);
        self.append(count)
    }

    /// Moves `count` values from the stack into the list below them.
    fn append(&mut self, count: usize) -> Step {
        self.count_items(count)?;
        let floor = self.marks.last().copied().unwrap_or(0);
        let at = self.stack.len().checked_sub(count).filter(|at| *at > floor).ok_or_else(|| self.underflow())?;
        let items = self.take_from(at);
        match self.top_node() {
            Some(Node::List(list)) => {
                list.extend(items);
                Ok(())
            }
            _ => Err(self.wrong("a list")),
        }
    }

    fn set_marked(&mut self) -> Step {
        let items = self.pop_mark()?;
        let count = items.len();
        self.stack.extend(items);
        self.set_items(count)
    }

    /// Moves `count` keys and values from the stack into the dict below them.
    fn set_items(&mut self, count: usize) -> Step {
        self.count_items(count)?;
        let floor = self.marks.last().copied().unwrap_or(0);
        let at = self.stack.len().checked_sub(count).filter(|at| *at > floor).ok_or_else(|| self.underflow())?;
        let items = self.take_from(at);
        let pairs = self.pairs(&items)?;
        match self.top_node() {
            Some(Node::Dict(dict)) => {
                dict.extend(pairs);
                Ok(())
            }
            _ => Err(self.wrong("a dict")),
        }
    }

    fn top_node(&mut self) -> Option<&mut Node> {
        match self.stack.last() {
            Some(Value::Node(number)) => self.nodes.get_mut(*number as usize),
            _ => None,
        }
    }

    fn items_of(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Node(number) => match self.nodes.get(number as usize) {
                Some(Node::Tuple(items) | Node::List(items)) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    // Memo

    fn memo_index(&mut self, opcode: u8) -> Step<u64> {
        Ok(match opcode {
            b'q' | b'h' => u64::from(self.input.array::<1>()?[0]),
            b'r' | b'j' => u64::from(u32::from_le_bytes(self.input.array()?)),
            0x94 => self.memo.len() as u64,
            _ => {
                let span = self.input.line()?;
                let number = self.input.text(span)?.parse().ok();
                number.ok_or_else(|| self.input.error(PickleError::BadNumber { offset: self.input.offset() }))?
            }
        })
    }

    fn put(&mut self, opcode: u8) -> Step {
        let index = self.memo_index(opcode)?;
        if index >= MAX_MEMO {
            return Err(self.input.error(PickleError::MemoTooLarge { index }));
        }
        let value = self.stack.last().copied().ok_or_else(|| self.underflow())?;
        let index = index as usize;
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(value);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Step {
        let index = self.memo_index(opcode)?;
        let value = usize::try_from(index).ok().and_then(|at| self.memo.get(at).copied().flatten());
        match value {
            Some(value) => self.push(value),
            None => Err(self.input.error(PickleError::NoMemo { index })),
        }
    }

    // Globals and calls

    fn global(&mut self) -> Step {
        let (module, name) = (self.input.line()?, self.input.line()?);
        let known = self.look_up(module, name)?;
        self.push(Value::Global(known))
    }

    fn stack_global(&mut self) -> Step {
        match (self.pop()?, self.pop()?) {
            (Value::Text(name), Value::Text(module)) => {
                let known = self.look_up(module, name)?;
                self.push(Value::Global(known))
            }
            _ => Err(self.wrong("the name of a global")),
        }
    }

    /// The one gate to everything a pickle can name.
    fn look_up(&mut self, module: Span, name: Span) -> Step<Known> {
        let (module, name) = (self.input.text(module)?, self.input.text(name)?);
        let found = match (module, name) {
            ("collections", "OrderedDict") => Known::OrderedDict,
            ("torch._utils", "_rebuild_tensor") => Known::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v2") => Known::RebuildTensorV2,
            ("torch._utils", "_rebuild_parameter") => Known::RebuildParameter,
            ("torch", "Size") => Known::Size,
            _ if is_script_class(module) => Known::ScriptClass(self.names.len() as u32),
            _ if is_inert(module, name) => Known::Inert(self.names.len() as u32),
            _ => {
                let storage = name.strip_suffix("Storage").and_then(DType::from_torch_storage);
                match storage {
                    Some(dtype) if module == "torch" => return Ok(Known::Storage(dtype)),
                    _ => {
                        let name = Foreign::from(format!("{module}.{name}").as_str());
                        return Err(self.input.error(PickleError::ForbiddenGlobal { name }));
                    }
                }
            }
        };
        if matches!(found, Known::ScriptClass(_) | Known::Inert(_)) {
            if self.names.len() >= MAX_NAMES {
                return Err(self.input.error(PickleError::TooMany { what: "names", limit: MAX_NAMES }));
            }
            self.names.push(Foreign::from(format!("{module}.{name}").as_str()));
        }
        Ok(found)
    }

    fn name_of(&self, known: Known) -> Foreign {
        let name = match known {
            Known::OrderedDict => "collections.OrderedDict",
            Known::RebuildTensor => "torch._utils._rebuild_tensor",
            Known::RebuildTensorV2 => "torch._utils._rebuild_tensor_v2",
            Known::RebuildParameter => "torch._utils._rebuild_parameter",
            Known::Storage(_) => "a torch storage class",
            Known::Size => "torch.Size",
            Known::ScriptClass(at) | Known::Inert(at) => {
                return self.names.get(at as usize).cloned().unwrap_or_else(|| Foreign::from("a class"));
            }
        };
        Foreign::from(name)
    }

    /// REDUCE: a call.
    fn reduce(&mut self) -> Step {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Value::Global(known) = callee else {
            let name = Foreign::from(kind_of(callee));
            return Err(self.input.error(PickleError::ForbiddenCall { name }));
        };
        if self.items_of(arguments).is_none() {
            return Err(self.wrong("a tuple of arguments"));
        }
        match known {
            Known::OrderedDict => self.ordered_dict(arguments),
            Known::RebuildTensor | Known::RebuildTensorV2 => self.rebuild_tensor(arguments),
            Known::RebuildParameter => match self.items_of(arguments).and_then(|items| items.first().copied()) {
                Some(tensor) if self.is_tensor(tensor) => self.push(tensor),
                _ => Err(self.bad("_rebuild_parameter", "the first is not a tensor")),
            },
            Known::Size => match self.items_of(arguments) {
                Some(&[size]) if self.items_of(size).is_some() => self.push(size),
                _ => Err(self.bad("torch.Size", "not one tuple")),
            },
            Known::Inert(_) => self.push(Value::Opaque),
            Known::Storage(_) | Known::ScriptClass(_) => {
                Err(self.input.error(PickleError::ForbiddenCall { name: self.name_of(known) }))
            }
        }
    }

    fn bad(&self, function: &'static str, why: &'static str) -> WeightsError {
        self.input.error(PickleError::BadArguments { function, why })
    }

    /// `OrderedDict()` or, from Python 2, `OrderedDict([[key, value], ...])`.
    fn ordered_dict(&mut self, arguments: Value) -> Step {
        let pairs = match self.items_of(arguments).unwrap_or_default() {
            [] => Vec::new(),
            &[list] => {
                let items = self.items_of(list).ok_or_else(|| self.bad("OrderedDict", "not a list of pairs"))?;
                let pair = |item: &Value| match self.items_of(*item) {
                    Some(&[key, value]) => Some((key, value)),
                    _ => None,
                };
                let pairs: Option<Vec<_>> = items.iter().map(pair).collect();
                pairs.ok_or_else(|| self.bad("OrderedDict", "not a list of pairs"))?
            }
            _ => return Err(self.bad("OrderedDict", "more than one")),
        };
        self.count_items(2 * pairs.len())?;
        self.push_node(Node::Dict(pairs))
    }

    fn is_tensor(&self, value: Value) -> bool {
        matches!(value, Value::Node(at) if matches!(self.nodes.get(at as usize), Some(Node::Tensor(_))))
    }

    /// `_rebuild_tensor(storage, offset, size, stride)`; version 2 adds `requires_grad, hooks`, which are ignored.
    fn rebuild_tensor(&mut self, arguments: Value) -> Step {
        let bad = |why| self.bad("_rebuild_tensor", why);
        let &[storage, offset, shape, strides, ..] = self.items_of(arguments).unwrap_or_default() else {
            return Err(bad("fewer than four"));
        };
        let storage = match storage {
            Value::Node(at) => match self.nodes.get(at as usize) {
                Some(Node::Storage(storage)) => *storage,
                _ => return Err(bad("the first is not a storage")),
            },
            _ => return Err(bad("the first is not a storage")),
        };
        let Value::Int(offset) = offset else { return Err(bad("the offset is not an integer")) };
        let shape = self.integers(shape).ok_or_else(|| bad("the shape is not a tuple of at most 8 integers"))?;
        let strides = self.integers(strides).ok_or_else(|| bad("the strides are not a tuple of at most 8 integers"))?;
        if shape.len() != strides.len() {
            return Err(bad("shape and strides differ in length"));
        }
        self.push_node(Node::Tensor(Box::new(Tensor { storage, offset, shape, strides })))
    }

    /// A tuple of at most 8 integers; the limit keeps a long tuple that many tensors share from being copied by each.
    fn integers(&self, value: Value) -> Option<Vec<i64>> {
        let items = self.items_of(value).filter(|items| items.len() <= MAX_RANK)?;
        items
            .iter()
            .map(|item| match item {
                Value::Int(number) => Some(*number),
                _ => None,
            })
            .collect()
    }

    /// BINPERSID: `("storage", class, key, location, elements)` and, in legacy files, a view that must be None.
    fn persistent_id(&mut self) -> Step {
        let id = self.pop()?;
        let bad = PickleError::BadPersistentId { offset: self.input.offset() };
        let (tag, class, key, elements, view) = match self.items_of(id) {
            Some(&[tag, class, key, _location, elements]) => (tag, class, key, elements, Value::None),
            Some(&[tag, class, key, _location, elements, view]) => (tag, class, key, elements, view),
            _ => return Err(self.input.error(bad)),
        };
        let (Value::Text(tag), Value::Global(Known::Storage(dtype)), Value::Text(key), Value::Int(elements)) =
            (tag, class, key, elements)
        else {
            return Err(self.input.error(bad));
        };
        if self.input.get(tag) != b"storage" {
            return Err(self.input.error(bad));
        }
        if view != Value::None {
            return Err(self.input.error(PickleError::StorageView));
        }
        self.push_node(Node::Storage(Storage { dtype, key, elements }))
    }

    /// NEWOBJ: `class.__new__(class, *arguments)`.
    fn new_object(&mut self) -> Step {
        let (_arguments, class) = (self.pop()?, self.pop()?);
        match class {
            Value::Global(Known::ScriptClass(_)) => self.push_node(Node::Object(Vec::new())),
            Value::Global(Known::OrderedDict) => self.push_node(Node::Dict(Vec::new())),
            Value::Global(Known::Inert(_)) => self.push(Value::Opaque),
            Value::Global(known) => Err(self.input.error(PickleError::ForbiddenObject { name: self.name_of(known) })),
            other => {
                let name = Foreign::from(kind_of(other));
                Err(self.input.error(PickleError::ForbiddenObject { name }))
            }
        }
    }

    /// OBJ: protocol 1's way to make an object; no torch writes it.
    fn marked_object(&mut self) -> Step {
        let items = self.pop_mark()?;
        let name = match items.first() {
            Some(Value::Global(known)) => self.name_of(*known),
            Some(other) => Foreign::from(kind_of(*other)),
            None => return Err(self.underflow()),
        };
        Err(self.input.error(PickleError::ForbiddenObject { name }))
    }

    /// INST: protocol 0's way to make an object; no torch writes it.
    fn instance(&mut self) -> Step {
        let (module, name) = (self.input.line()?, self.input.line()?);
        let known = self.look_up(module, name)?;
        Err(self.input.error(PickleError::ForbiddenObject { name: self.name_of(known) }))
    }

    /// BUILD: `object.__setstate__(state)`. A TorchScript object gets attributes; an OrderedDict may get the
    /// `_metadata` that `state_dict()` attaches, which is dropped.
    fn build(&mut self) -> Step {
        let state = self.pop()?;
        if self.stack.last() == Some(&Value::Opaque) {
            return Ok(());
        }
        let attributes = match state {
            Value::Node(at) => match self.nodes.get(at as usize) {
                Some(Node::Dict(pairs)) => Some(pairs.clone()),
                _ => None,
            },
            _ => None,
        };
        self.count_items(attributes.as_ref().map_or(0, |pairs| 2 * pairs.len()))?;
        let allowed = |pairs: &[(Value, Value)], input: &Input| {
            let is_metadata = |key: &Value| matches!(key, Value::Text(span) if input.get(*span) == b"_metadata");
            pairs.iter().all(|(key, _)| is_metadata(key))
        };
        let metadata_only = attributes.as_ref().is_some_and(|pairs| allowed(pairs, &self.input));
        let what = match self.top_node() {
            Some(Node::Object(object)) => {
                // A state that is no dict comes from a __setstate__ of its own; it holds no named attributes.
                object.extend(attributes.unwrap_or_default());
                return Ok(());
            }
            Some(Node::Dict(_)) if metadata_only => return Ok(()),
            Some(Node::Dict(_)) => "an OrderedDict (only _metadata may be set)",
            Some(Node::Tensor(_)) => "a tensor",
            _ => "something that has none",
        };
        Err(self.input.error(PickleError::ForbiddenState { what: Foreign::from(what) }))
    }

    fn extension(&mut self, len: u64) -> Step {
        match self.long(len)? {
            Value::Int(code) => Err(self.input.error(PickleError::Extension { code })),
            _ => Err(self.underflow()),
        }
    }
}

/// Classes that TorchScript compiled carry the module prefix `__torch__`.
fn is_script_class(module: &str) -> bool {
    module == "__torch__" || module.starts_with("__torch__.")
}

/// Globals of training files that weights do not need. Nothing of them is run: they and what they "return" are opaque.
fn is_inert(module: &str, name: &str) -> bool {
    match module {
        "torch" => TORCH_DTYPES.contains(&name) || name == "device",
        "argparse" => name == "Namespace",
        "numpy" => name == "dtype",
        "numpy.core.multiarray" | "numpy._core.multiarray" => name == "scalar",
        // How Python 3 writes the bytes of a NumPy scalar in protocol 2.
        "_codecs" => name == "encode",
        // Type tags around lists and dicts in TorchScript archives.
        "torch.jit._pickle" => name == "restore_type_tag" || (name.starts_with("build_") && name.ends_with("list")),
        _ => false,
    }
}

const TORCH_DTYPES: [&str; 12] = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "complex64",
    "complex128",
];

fn kind_of(value: Value) -> &'static str {
    match value {
        Value::None => "None",
        Value::Bool(_) => "a boolean",
        Value::Int(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Text(_) => "a text",
        Value::Node(_) => "a container",
        Value::Global(_) => "a class",
        Value::Opaque => "a value that weights do not need",
    }
}

/// Opcodes that exist but have no place here, and bytes that are none.
fn refusal(opcode: u8, offset: u64) -> PickleError {
    let name = match opcode {
        b'P' => "PERSID",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return PickleError::UnknownOpcode { opcode, offset },
    };
    PickleError::RefusedOpcode { name, offset }
}
