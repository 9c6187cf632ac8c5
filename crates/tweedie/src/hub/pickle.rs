//! A pickle machine that builds data and runs nothing.
//!
//! Python's pickle is a program for a stack machine; among its instructions are "fetch this global"
//! and "call it", which is how a file of weights can run any code. Here a global is one of a short
//! list of names, each of which stands for data: storages, the function that makes a tensor of one,
//! ordered dictionaries. Everything else is refused by name, and nothing is ever called.
//!
//! Instructions are those of protocols 2 to 5 (Python's `pickletools` documents them). Values lie in
//! an arena and refer to each other by number, so that neither a deep nest nor a cycle costs any
//! stack, and what the values may take in total is bounded by the length of the file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;

use super::json::one_line;
use crate::{Error, Result};

/// The number of a value in the arena.
pub(crate) type Id = u32;

/// Values in one block of the arena, so that no block is large.
const BLOCK: usize = 1024;
/// Bytes that values may take beside what follows from the length of the file.
const FREE: usize = 256 << 10;
/// What a value costs in the arena and in what refers to it.
const COST: usize = 48;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number beyond 64 bits: where its bytes lie, lowest first.
    Long(usize, u32),
    /// A real number.
    Float,
    /// A text: where its bytes lie.
    Text(usize, u32),
    /// Bytes.
    Bytes,
    /// A list or a set.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Box<[Id]>),
    /// A dictionary.
    Dict(Vec<(Id, Id)>),
    /// A global that stands for data.
    Global(Global),
    /// The numbers that tensors are views of.
    Storage(Box<Storage>),
    /// A tensor.
    Tensor(Box<Tensor>),
    /// Something that means nothing to weights: a numpy scalar, a training callback.
    Inert,
}

/// The globals that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    /// `torch._utils._rebuild_tensor_v2` and its older form.
    Rebuild,
    /// `torch._utils._rebuild_tensor_v3`, which names the type of the numbers.
    RebuildTyped,
    /// `torch._utils._rebuild_parameter`: its first argument.
    Parameter,
    /// `collections.OrderedDict`, and containers that hold one.
    Dict,
    /// `torch.Size`: a tuple.
    Size,
    /// A storage of numbers of this type; `None` for one of bytes.
    Storage(Option<Dtype>),
    /// A type of numbers.
    Dtype(Dtype),
    /// A class or function whose results mean nothing to weights.
    Inert,
}

/// A storage as a tensor refers to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Storage {
    /// Its numbers' type; `None` where they are bytes.
    pub(crate) dtype: Option<Dtype>,
    /// Its key: where the text lies.
    pub(crate) key: (usize, u32),
    /// How many numbers the file says it has.
    pub(crate) count: usize,
    /// Where it begins in the storage of that key, in numbers (a view of the oldest format).
    pub(crate) offset: usize,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) storage: Storage,
    pub(crate) dtype: Dtype,
    /// Where it begins in its storage, in numbers.
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// What a pickle built.
pub(crate) struct Pickle<'a> {
    bytes: &'a [u8],
    blocks: Vec<Vec<Value>>,
    /// The value that is the result.
    pub(crate) root: Id,
    /// The byte behind its last instruction.
    pub(crate) end: usize,
}

impl Pickle<'_> {
    /// The value with this number.
    pub(crate) fn get(&self, id: Id) -> &Value {
        static NONE: Value = Value::None;
        let id = id as usize;
        self.blocks.get(id / BLOCK).and_then(|b| b.get(id % BLOCK)).unwrap_or(&NONE)
    }

    /// All values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.blocks.iter().flatten()
    }

    /// The text at a place of the file.
    pub(crate) fn text(&self, (at, length): (usize, u32)) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(at..at.checked_add(length as usize)?)?).ok()
    }

    /// The text that a value is.
    pub(crate) fn text_of(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(at, length) => self.text((*at, *length)),
            _ => None,
        }
    }

    /// The entry of a dictionary under a text.
    pub(crate) fn entry(&self, dict: &[(Id, Id)], key: &str) -> Option<Id> {
        dict.iter().rev().find(|(k, _)| self.text_of(*k) == Some(key)).map(|(_, v)| *v)
    }
}

/// The globals that are data, by module and name.
fn global(module: &str, name: &str) -> Option<Global> {
    let storage = |name: &str| {
        Some(Global::Storage(Some(match name {
            "FloatStorage" => Dtype::F32,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::BF16,
            "DoubleStorage" => Dtype::F64,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" => Dtype::U8,
            "BoolStorage" => Dtype::BOOL,
            "UntypedStorage" => return Some(Global::Storage(None)),
            _ => return None,
        })))
    };
    let number = |name: &str| {
        Some(Global::Dtype(match name {
            "float32" | "float" => Dtype::F32,
            "float16" | "half" => Dtype::F16,
            "bfloat16" => Dtype::BF16,
            "float64" | "double" => Dtype::F64,
            "float8_e4m3fn" => Dtype::F8_E4M3,
            "float8_e5m2" => Dtype::F8_E5M2,
            "int64" => Dtype::I64,
            "int32" => Dtype::I32,
            "int16" => Dtype::I16,
            "int8" => Dtype::I8,
            "uint8" => Dtype::U8,
            "bool" => Dtype::BOOL,
            _ => return None,
        }))
    };
    match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Some(Global::Rebuild),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTyped),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Some(Global::Parameter)
        }
        ("collections", "OrderedDict" | "defaultdict")
        | ("torch.nn.modules.container", "ParameterDict") => Some(Global::Dict),
        ("torch", "Size") => Some(Global::Size),
        ("torch", name) if name != "device" => storage(name).or_else(|| number(name)),
        ("torch.cuda" | "torch.storage", _) => storage(name),
        // Found in published checkpoints beside the weights: a step counter's scalar, the state of a
        // training callback, the device that a tensor was on.
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
        | ("numpy", "dtype" | "ndarray")
        | ("_codecs", "encode")
        | ("builtins" | "__builtin__", "set" | "dict" | "list" | "int" | "float" | "bytes")
        | (
            "pytorch_lightning.callbacks.model_checkpoint" | "pytorch_lightning.callbacks",
            "ModelCheckpoint" | "model_checkpoint",
        )
        | ("torch", "device") => Some(Global::Inert),
        _ => None,
    }
}

/// Runs the pickle that begins at byte `start` of a file; `file` is named in errors.
///
/// # Errors
/// It ends early, uses an instruction or a global that is not data, or builds more than a file of
/// this length can need.
pub(crate) fn run<'a>(file: &Path, bytes: &'a [u8], range: Range<usize>) -> Result<Pickle<'a>> {
    let mut machine = Machine {
        file,
        bytes,
        at: range.start,
        stop: range.end.min(bytes.len()),
        blocks: Vec::new(),
        count: 0,
        spent: 0,
        room: bytes.len().saturating_mul(2).saturating_add(FREE),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    let root = machine.run()?;
    Ok(Pickle { bytes, root, end: machine.at, blocks: machine.blocks })
}

struct Machine<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    at: usize,
    stop: usize,
    blocks: Vec<Vec<Value>>,
    count: usize,
    spent: usize,
    room: usize,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn fail(&self, why: impl Into<String>) -> Error {
        Error::format(self.file, format!("pickle, byte {}", self.at), why)
    }

    fn run(&mut self) -> Result<Id> {
        loop {
            let [op] = self.array::<1>()?;
            match op {
                b'.' => return self.pop(),
                // Protocol and frame are hints.
                0x80 => drop(self.array::<1>()?),
                0x95 => drop(self.array::<8>()?),
                b'(' => {
                    self.spend(8)?;
                    self.marks.push(self.stack.len());
                }
                b'0' => drop(self.pop()?),
                b'1' => drop(self.popped_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.push_id(top)?;
                }
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'K' => {
                    let [n] = self.array()?;
                    self.push(Value::Int(n.into()))?;
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                0x8a => {
                    let [n] = self.array()?;
                    self.long(n.into())?;
                }
                0x8b => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.long(n as usize)?;
                }
                b'G' => {
                    self.array::<8>()?;
                    self.push(Value::Float)?;
                }
                0x8c | b'U' => {
                    let [n] = self.array()?;
                    self.text(n.into())?;
                }
                b'X' | b'T' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.text(n as usize)?;
                }
                0x8d => {
                    let n = u64::from_le_bytes(self.array()?);
                    self.text(usize::try_from(n).unwrap_or(usize::MAX))?;
                }
                b'C' => {
                    let [n] = self.array()?;
                    self.skip(n.into())?;
                }
                b'B' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.skip(n as usize)?;
                }
                0x8e | 0x96 => {
                    let n = u64::from_le_bytes(self.array()?);
                    self.skip(usize::try_from(n).unwrap_or(usize::MAX))?;
                }
                b']' | 0x8f => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b')' => self.push(Value::Tuple(Box::default()))?,
                b't' => {
                    let items = self.popped_mark()?;
                    self.tuple(items)?;
                }
                0x85..=0x87 => {
                    let count = usize::from(op - 0x84);
                    let from = self.floor(count)?;
                    let items = self.stack.split_off(from);
                    self.tuple(items)?;
                }
                b'l' | 0x91 => {
                    let items = self.popped_mark()?;
                    self.spend(4 * items.len())?;
                    self.push(Value::List(items))?;
                }
                b'd' => {
                    let items = self.popped_mark()?;
                    self.push(Value::Dict(Vec::new()))?;
                    self.set_items(&items)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' | 0x90 => {
                    let items = self.popped_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let from = self.floor(2)?;
                    let items = self.stack.split_off(from);
                    self.set_items(&items)?;
                }
                b'u' => {
                    let items = self.popped_mark()?;
                    self.set_items(&items)?;
                }
                b'q' => {
                    let [n] = self.array()?;
                    self.remember(n.into())?;
                }
                b'r' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.remember(n)?;
                }
                0x94 => {
                    let n = self.memo.len() as u32;
                    self.remember(n)?;
                }
                b'h' => {
                    let [n] = self.array()?;
                    self.recall(n.into())?;
                }
                b'j' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.recall(n)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (module, name) = (self.string(module)?, self.string(name)?);
                    self.global(module, name)?;
                }
                b'R' => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    self.call(callee, arguments)?;
                }
                0x81 => {
                    let (arguments, class) = (self.pop()?, self.pop()?);
                    match self.get(class) {
                        Value::Global(Global::Dict | Global::Inert) => {
                            self.call(class, arguments)?;
                        }
                        _ => return Err(self.fail("makes an object of a class that is not data")),
                    }
                }
                b'b' => {
                    let state = self.pop()?;
                    self.build(state)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.storage(id)?;
                }
                other => {
                    let why = format!("instruction {other:#04x} is none that data need; refused");
                    return Err(self.fail(why));
                }
            }
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let found = self.bytes.get(self.at..self.stop).and_then(|b| b.first_chunk::<N>());
        let found = *found.ok_or_else(|| self.fail("truncated"))?;
        self.at += N;
        Ok(found)
    }

    /// Moves over `count` bytes and says where they began.
    fn take(&mut self, count: usize) -> Result<usize> {
        let from = self.at;
        let end = from.checked_add(count).filter(|end| *end <= self.stop);
        self.at = end.ok_or_else(|| self.fail(format!("truncated: {count} bytes are claimed")))?;
        Ok(from)
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = self.bytes.get(self.at..self.stop).unwrap_or_default();
        let end = rest.iter().take(1024).position(|b| *b == b'\n');
        let text = end.and_then(|end| std::str::from_utf8(&rest[..end]).ok());
        let text = text.ok_or_else(|| self.fail("wanted the name of a global"))?;
        self.at += text.len() + 1;
        Ok(text)
    }

    fn text(&mut self, length: usize) -> Result<()> {
        let from = self.take(length)?;
        let length = u32::try_from(length).map_err(|_| self.fail("a text of 4 GB"))?;
        self.push(Value::Text(from, length))
    }

    fn skip(&mut self, length: usize) -> Result<()> {
        self.take(length)?;
        self.push(Value::Bytes)
    }

    fn long(&mut self, length: usize) -> Result<()> {
        let from = self.take(length)?;
        let bytes = self.bytes.get(from..from + length).unwrap_or_default();
        let value = if length <= 8 {
            let sign = bytes.last().map_or(0, |b| if b & 0x80 == 0 { 0 } else { 0xff });
            let mut all = [sign; 8];
            all[..length].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(all))
        } else {
            Value::Long(from, length as u32)
        };
        self.push(value)
    }

    fn string(&self, id: Id) -> Result<&'a str> {
        let Value::Text(at, length) = *self.get(id) else {
            return Err(self.fail("wanted a text"));
        };
        let bytes = self.bytes.get(at..at + length as usize).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| self.fail("wanted a text in UTF-8"))
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent > self.room {
            return Err(self.fail("builds more values than a file of this length can need"));
        }
        Ok(())
    }

    fn get(&self, id: Id) -> &Value {
        static NONE: Value = Value::None;
        let id = id as usize;
        self.blocks.get(id / BLOCK).and_then(|b| b.get(id % BLOCK)).unwrap_or(&NONE)
    }

    fn get_mut(&mut self, id: Id) -> Option<&mut Value> {
        let id = id as usize;
        self.blocks.get_mut(id / BLOCK)?.get_mut(id % BLOCK)
    }

    fn push(&mut self, value: Value) -> Result<()> {
        self.spend(COST)?;
        let full = self.blocks.last().is_none_or(|b| b.len() == BLOCK);
        if full {
            // The first block grows as needed, for files of a few values.
            let size = if self.blocks.is_empty() { 0 } else { BLOCK };
            self.blocks.push(Vec::with_capacity(size));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.push(value);
        }
        self.stack.push(self.count as Id);
        self.count += 1;
        Ok(())
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        self.spend(4)?;
        self.stack.push(id);
        Ok(())
    }

    /// The lowest position that instructions may reach: what lies below the last mark is not theirs.
    fn floor(&self, count: usize) -> Result<usize> {
        let low = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(count).filter(|from| *from >= low);
        from.ok_or_else(|| self.fail("takes more from the stack than there is"))
    }

    fn pop(&mut self) -> Result<Id> {
        self.floor(1)?;
        self.stack.pop().ok_or_else(|| self.fail("takes more from the stack than there is"))
    }

    fn top(&self) -> Result<Id> {
        self.floor(1)?;
        self.stack.last().copied().ok_or_else(|| self.fail("the stack is empty"))
    }

    fn popped_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        let mark = mark.ok_or_else(|| self.fail("wanted a mark on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, items: Vec<Id>) -> Result<()> {
        self.spend(4 * items.len())?;
        self.push(Value::Tuple(items.into()))
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        self.spend(8 * items.len())?;
        let target = self.top()?;
        match self.get_mut(target) {
            Some(Value::List(list)) => list.extend_from_slice(items),
            Some(Value::Inert) => {}
            _ => return Err(self.fail("appends to what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.fail("a key without a value"));
        }
        self.spend(16 * pairs.len())?;
        let target = self.top()?;
        match self.get_mut(target) {
            Some(Value::Dict(dict)) => dict.extend(pairs.iter().map(|[k, v]| (*k, *v))),
            Some(Value::Inert) => {}
            _ => return Err(self.fail("sets items of what is no dictionary")),
        }
        Ok(())
    }

    fn remember(&mut self, number: u32) -> Result<()> {
        let top = self.top()?;
        self.spend(16)?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<()> {
        let found = self.memo.get(&number).copied();
        let id = found.ok_or_else(|| self.fail(format!("nothing is remembered as {number}")))?;
        self.push_id(id)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let Some(global) = global(module, name) else {
            let why = format!(
                "wants Python's `{}`, which is no data; refused, since a file of weights needs none of it",
                one_line(&format!("{module}.{name}"))
            );
            return Err(Error::format(self.file, "", why));
        };
        self.push(Value::Global(global))
    }

    /// Sets the state of the object on top. Only dictionaries keep any of it: that of a container of
    /// parameters holds them.
    fn build(&mut self, state: Id) -> Result<()> {
        let target = self.top()?;
        let items = match self.get(state) {
            Value::Dict(items) => items.clone(),
            _ => Vec::new(),
        };
        self.spend(16 * items.len())?;
        let named = |machine: &Self, id: Id| machine.string(id).is_ok_and(|n| n == "_metadata");
        let items: Vec<(Id, Id)> = items.into_iter().filter(|(k, _)| !named(self, *k)).collect();
        match self.get_mut(target) {
            Some(Value::Dict(dict)) => dict.extend(items),
            Some(Value::Inert | Value::Tensor(_)) => {}
            _ => return Err(self.fail("sets the state of what has none")),
        }
        Ok(())
    }

    fn tuple_of(&self, id: Id) -> Result<Vec<Id>> {
        match self.get(id) {
            Value::Tuple(items) => Ok(items.to_vec()),
            _ => Err(self.fail("wanted a tuple of arguments")),
        }
    }

    fn size_of(&self, id: Id) -> Result<usize> {
        match self.get(id) {
            Value::Int(n) => {
                usize::try_from(*n).map_err(|_| self.fail(format!("wanted a size, found {n}")))
            }
            _ => Err(self.fail("wanted a size")),
        }
    }

    fn sizes_of(&self, id: Id) -> Result<Vec<usize>> {
        let items = self.tuple_of(id)?;
        if items.len() > super::header::MAX_RANK {
            return Err(self.fail(format!("a tensor of {} dimensions", items.len())));
        }
        items.into_iter().map(|n| self.size_of(n)).collect()
    }

    fn call(&mut self, callee: Id, arguments: Id) -> Result<()> {
        let Value::Global(global) = *self.get(callee) else {
            return Err(self.fail("calls what is no global"));
        };
        let arguments = self.tuple_of(arguments)?;
        let value = match (global, arguments.as_slice()) {
            (Global::Inert, _) => Value::Inert,
            (Global::Dict, arguments) => Value::Dict(self.pairs(arguments)?),
            (Global::Size, [sizes]) => Value::Tuple(self.tuple_of(*sizes)?.into()),
            (Global::Parameter, [tensor, ..]) => {
                let tensor = *tensor;
                return self.push_id(tensor);
            }
            (Global::Rebuild, [storage, offset, shape, strides, ..]) => {
                self.tensor(None, [*storage, *offset, *shape, *strides])?
            }
            (Global::RebuildTyped, [storage, offset, shape, strides, _, _, dtype, ..]) => {
                let Value::Global(Global::Dtype(dtype)) = *self.get(*dtype) else {
                    return Err(self.fail("wanted a type of numbers"));
                };
                self.tensor(Some(dtype), [*storage, *offset, *shape, *strides])?
            }
            _ => return Err(self.fail(format!("{global:?} with {} arguments", arguments.len()))),
        };
        self.spend(match &value {
            Value::Dict(items) => 8 * items.len(),
            Value::Tensor(tensor) => 128 + 16 * tensor.shape.len(),
            _ => 0,
        })?;
        self.push(value)
    }

    /// The items of a new dictionary: none, or those of a list of pairs.
    fn pairs(&self, arguments: &[Id]) -> Result<Vec<(Id, Id)>> {
        let [list] = arguments else { return Ok(Vec::new()) };
        let Value::List(list) = self.get(*list) else { return Ok(Vec::new()) };
        let mut pairs = Vec::new();
        for pair in list {
            match self.get(*pair) {
                Value::Tuple(two) if two.len() == 2 => pairs.push((two[0], two[1])),
                Value::List(two) if two.len() == 2 => pairs.push((two[0], two[1])),
                _ => return Err(self.fail("wanted pairs of key and value")),
            }
        }
        Ok(pairs)
    }

    fn tensor(
        &self,
        dtype: Option<Dtype>,
        [storage, offset, shape, strides]: [Id; 4],
    ) -> Result<Value> {
        let Value::Storage(storage) = self.get(storage) else {
            return Err(self.fail("wanted a storage"));
        };
        let storage = (**storage).clone();
        let (shape, strides) = (self.sizes_of(shape)?, self.sizes_of(strides)?);
        if shape.len() != strides.len() {
            return Err(self.fail(format!("shape {shape:?} with strides {strides:?}")));
        }
        let offset = self.size_of(offset)?;
        let dtype = dtype.or(storage.dtype).unwrap_or(Dtype::U8);
        Ok(Value::Tensor(Box::new(Tensor { storage, dtype, offset, shape, strides })))
    }

    /// What a persistent id stands for: `("storage", type, key, device, count)`, in the oldest
    /// format with `None` or `(key, offset, count)` of a view behind it.
    fn storage(&mut self, id: Id) -> Result<()> {
        let parts = self.tuple_of(id)?;
        let wrong = "wanted a storage: its type, key, device and count";
        let [tag, class, key, _, count, rest @ ..] = parts.as_slice() else {
            return Err(self.fail(wrong));
        };
        let dtype = match *self.get(*class) {
            Value::Global(Global::Storage(dtype)) => dtype,
            Value::Global(Global::Dtype(dtype)) => Some(dtype),
            _ => return Err(self.fail(wrong)),
        };
        let Value::Text(at, length) = *self.get(*key) else { return Err(self.fail(wrong)) };
        if self.string(*tag).is_ok_and(|t| t != "storage") {
            return Err(self.fail(wrong));
        }
        let mut storage =
            Storage { dtype, key: (at, length), count: self.size_of(*count)?, offset: 0 };
        if let [view] = rest
            && let Value::Tuple(view) = self.get(*view)
        {
            let [_, offset, count] = **view else { return Err(self.fail(wrong)) };
            storage.offset = self.size_of(offset)?;
            storage.count = self.size_of(count)?;
        }
        self.spend(64)?;
        self.push(Value::Storage(Box::new(storage)))
    }
}
